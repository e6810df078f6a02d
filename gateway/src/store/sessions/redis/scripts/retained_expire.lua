-- a time up to which, limit -> device and topic, bytes and product of each
local ends, limit = arg(), arg()
local gone = {}
for _, field in ipairs(redis.call('ZRANGEBYSCORE', B .. ':retx', '-inf', ends, 'LIMIT', 0, limit)) do
  push(gone, { field, redis.call('HGET', B .. ':rete', field) or '0 ' })
  local device, topic = field:match('^([^\n]*)\n(.*)$')
  forget_retained(device, topic)
end
return gone
