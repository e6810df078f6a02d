-- A dead node, for how long in ms nobody else is to see it off -> whether this node may (1)
local node, span = arg(), arg()
if is_alive(node) or redis.call('SISMEMBER', B .. ':nodes', node) == 0 then
  return 0
end
local lock = B .. ':reap:' .. node
local holder = redis.call('GET', lock)
if holder and holder ~= me and is_alive(holder) then
  return 0
end
redis.call('SET', lock, me, 'PX', span)
return 1
