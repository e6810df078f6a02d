-- KEYS[1] is the hash tag. Name, instance, lease in ms, messages that may wait, what is known of the node, the
-- place that it has, 0 before its first lease
-- -> its number, or 0 and for how many ms another node of that name has its lease; its place, 1 to 65535
local B = KEYS[1]
local name, instance, lease, cap, record, has = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local before = redis.call('HGET', B .. ':names', name)
if before then
  local left = redis.call('PTTL', B .. ':lease:' .. before)
  if left > 0 and redis.call('HGET', B .. ':node:' .. before, 'i') ~= instance then
    return { 0, left, 0 }
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

-- A small number that stands in what devices remember: that of the process or the name from before, unless a node that
-- lives has it.
local taken = {}
for _, node in ipairs(redis.call('SMEMBERS', B .. ':nodes')) do
  local other = redis.call('HGET', B .. ':node:' .. node, 'n')
  if other and other ~= name then
    taken[redis.call('HGET', B .. ':places', other) or ''] = other
  end
end
local place = has ~= '0' and has or redis.call('HGET', B .. ':places', name)
if not place or taken[place] then
  repeat
    place = string.format('%.0f', redis.call('INCR', B .. ':place') % 65535 + 1)
  until not taken[place]
  -- Names that came and went, as those of pods do, are not remembered for ever.
  if redis.call('HLEN', B .. ':places') >= 65535 then
    redis.call('DEL', B .. ':places')
    for at, other in pairs(taken) do
      redis.call('HSET', B .. ':places', other, at)
    end
  end
end
redis.call('HSET', B .. ':places', name, place)
return { tonumber(number), 0, tonumber(place) }
