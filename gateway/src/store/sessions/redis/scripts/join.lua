-- KEYS[1] is the hash tag. Name, instance, lease in ms, messages that may wait, what is known of the node
-- -> its number, or 0 and for how many ms another node of that name has its lease
local B = KEYS[1]
local name, instance, lease, cap, record = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local before = redis.call('HGET', B .. ':names', name)
if before then
  local left = redis.call('PTTL', B .. ':lease:' .. before)
  if left > 0 and redis.call('HGET', B .. ':node:' .. before, 'i') ~= instance then
    return { 0, left }
  end
  -- Its own from before, which is dead: no two processes have one instance.
  redis.call('DEL', B .. ':lease:' .. before)
end
-- Greater than every number before, also those that a server forgot.
local time = redis.call('TIME')
local number = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
number = math.max(number, tonumber(redis.call('GET', B .. ':writer') or '0') + 1)
number = string.format('%.0f', number)
redis.call('SET', B .. ':writer', number)
redis.call('SET', B .. ':lease:' .. number, name, 'PX', lease)
redis.call('HSET', B .. ':names', name, number)
redis.call('HSET', B .. ':node:' .. number, 'n', name, 'i', instance, 'c', cap, 'r', record)
redis.call('SADD', B .. ':nodes', number)
return { tonumber(number), 0 }
