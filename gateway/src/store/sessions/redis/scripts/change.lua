-- A hash, then fields and values; a value that is empty takes its field out
local hash = B .. ':' .. arg()
while at < #ARGV do
  local field, value = arg(), arg()
  if value == '' then
    redis.call('HDEL', hash, field)
  else
    redis.call('HSET', hash, field, value)
  end
end
return 1
