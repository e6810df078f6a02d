-- a time up to which, limit -> id, name, application of each
local ends, limit = arg(), arg()
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', B .. ':sx', '-inf', ends, 'LIMIT', 0, limit)) do
  local kept = redis.call('HMGET', B .. ':s:' .. id, 'k', 'p')
  if kept[1] then
    push(found, { id, kept[1], kept[2] or '' })
  else
    redis.call('ZREM', B .. ':sx', id)
  end
end
return found
