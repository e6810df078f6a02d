-- a time up to which, limit -> what is gone
local ends, limit = arg(), arg()
local gone = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', B .. ':msgx', '-inf', ends, 'LIMIT', 0, limit)) do
  for _, session in ipairs(redis.call('SMEMBERS', B .. ':msgs:' .. id)) do
    push(gone, drop_queued(session, id))
  end
end
return gone
