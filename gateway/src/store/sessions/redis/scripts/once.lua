-- device, message -> whether another node has the device and was told (1)
local device, body = arg(), arg()
local held = redis.call('HGET', B .. ':dev', 'd:' .. device)
local node = held and held:match('^%d+')
if node and node ~= me and is_alive(node) then
  tell(node, 'once', 0, body)
  return 1
end
return 0
