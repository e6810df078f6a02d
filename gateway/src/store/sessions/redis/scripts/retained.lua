-- A list of changes, each with its own arguments
while at < #ARGV do
  local what, device = arg(), arg()
  if what == 'forget' then
    for _, topic in ipairs(redis.call('SMEMBERS', B .. ':retd:' .. device)) do
      forget_retained(device, topic)
    end
  elseif what == 'remove' then
    forget_retained(device, arg())
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
  end
end
return 1
