-- A list of changes, each with who sends it, by which claim, and its own arguments -> places of those, from 0, whose
-- sender was with another connection by then
local late, place = {}, 0
local function told(what, device, topic, entry)
  tell_all('retained', cjson.encode({ what = what, device = device, topic = topic, entry = entry }))
end
while at < #ARGV do
  local what, client, epoch, device = arg(), arg(), arg(), arg()
  if is_past(client, epoch) then
    late[#late + 1] = place
    at = at + (what == 'set' and 4 or 1)
  elseif what == 'forget' then
    for _, topic in ipairs(redis.call('SMEMBERS', B .. ':retd:' .. device)) do
      forget_retained(device, topic)
    end
    told(what, device, '', '')
  elseif what == 'remove' then
    local topic = arg()
    forget_retained(device, topic)
    told(what, device, topic, '')
  else
    local topic, entry, ends, body = arg(), arg(), arg(), arg()
    local field = device .. '\n' .. topic
    redis.call('HSET', B .. ':ret', field, body)
    redis.call('HSET', B .. ':rete', field, entry)
    redis.call('SADD', B .. ':retd:' .. device, topic)
    redis.call('ZREM', B .. ':retx', field)
    if ends ~= '' then
      redis.call('ZADD', B .. ':retx', ends, field)
    end
    told(what, device, topic, entry)
  end
  place = place + 1
end
return late
