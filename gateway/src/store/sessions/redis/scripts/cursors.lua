-- delivery, attempt, cursor, device and epoch of its session ('': any) of each
while at < #ARGV do
  local delivery, attempt, cursor, device, epoch = arg(), arg(), arg(), arg(), arg()
  local before = redis.call('HGET', B .. ':cursor', delivery)
  local client = device ~= '' and 'd:' .. device or ''
  if not is_past(client, epoch) and (not before or tonumber(before:match('^%d+')) <= tonumber(attempt)) then
    redis.call('HSET', B .. ':cursor', delivery, cursor)
  end
end
return 1
