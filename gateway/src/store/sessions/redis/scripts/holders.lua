-- Devices -> number of the node that holds the session of each, or 0
local found = {}
while at < #ARGV do
  local held = redis.call('HGET', B .. ':dev', 'd:' .. arg())
  local node = held and held:match('^%d+')
  found[#found + 1] = node and is_alive(node) and tonumber(node) or 0
end
return found
