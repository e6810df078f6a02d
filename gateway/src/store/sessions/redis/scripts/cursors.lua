-- delivery, attempt, cursor of each
while at < #ARGV do
  local delivery, attempt, cursor = arg(), arg(), arg()
  local before = redis.call('HGET', B .. ':cursor', delivery)
  if not before or tonumber(before:match('^%d+')) <= tonumber(attempt) then
    redis.call('HSET', B .. ':cursor', delivery, cursor)
  end
end
return 1
