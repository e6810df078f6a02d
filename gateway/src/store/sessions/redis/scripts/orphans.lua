-- sessions that have a queue -> those of them that are no more
local found = {}
while at < #ARGV do
  local id = arg()
  if redis.call('EXISTS', B .. ':s:' .. id) == 0 then
    push(found, id)
  end
end
return found
