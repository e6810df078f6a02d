-- A dead node, how many at most -> names and wills that are this node's now
local node, limit = arg(), arg()
local found = {}
if is_alive(node) then
  return found
end
for _, name in ipairs(redis.call('SPOP', B .. ':wills:' .. node, limit)) do
  local will = redis.call('HGET', B .. ':will', name)
  if will and redis.call('HGET', B .. ':willat', name) == node then
    redis.call('HSET', B .. ':willat', name, me)
    redis.call('SADD', B .. ':wills:' .. me, name)
    push(found, { name, will })
  end
end
return found
