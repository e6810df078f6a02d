-- session, limit, then devices -> what is gone: of these devices, or up to the limit where none is given
local session, limit = arg(), arg()
local gone = {}
if at == #ARGV then
  for _, id in ipairs(redis.call('ZRANGE', B .. ':q:' .. session, 0, limit - 1)) do
    push(gone, drop_queued(session, id))
  end
  return gone
end
local of = {}
while at < #ARGV do
  of[arg()] = true
end
local S = B .. ':s:' .. session
local all = redis.call('HGETALL', B .. ':qh:' .. session)
for i = 1, #all, 2 do
  local id, device = all[i], all[i + 1]:match('^%d+ %S+ (.*)$')
  if of[device] then
    push(gone, drop_queued(session, id))
    local kept = redis.call('HGET', S, 'o:' .. id)
    if kept and kept:sub(-1) == '0' then
      redis.call('HDEL', S, 'o:' .. id, 'q:' .. kept:match('^%d+ (%d+)'))
    end
  end
end
return gone
