-- A dead node without devices is no more.
local node = arg()
if is_alive(node) or redis.call('EXISTS', B .. ':of:' .. node, B .. ':wills:' .. node) > 0 then
  return 0
end
local name = redis.call('HGET', B .. ':node:' .. node, 'n')
if name and redis.call('HGET', B .. ':names', name) == node then
  redis.call('HDEL', B .. ':names', name)
end
redis.call('DEL', B .. ':node:' .. node, B .. ':in:' .. node, B .. ':reap:' .. node)
redis.call('HDEL', B .. ':told', node)
redis.call('SREM', B .. ':nodes', node)
return 1
