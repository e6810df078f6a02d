-- This node ends: its lease goes, and it too, unless it has clients or wills, which somebody has to see off.
redis.call('DEL', B .. ':lease:' .. me)
if redis.call('EXISTS', B .. ':of:' .. me, B .. ':wills:' .. me) == 0 then
  local name = redis.call('HGET', B .. ':node:' .. me, 'n')
  if name and redis.call('HGET', B .. ':names', name) == me then
    redis.call('HDEL', B .. ':names', name)
  end
  redis.call('DEL', B .. ':node:' .. me, B .. ':in:' .. me)
  redis.call('HDEL', B .. ':told', me)
  redis.call('SREM', B .. ':nodes', me)
end
return 1
