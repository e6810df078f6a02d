-- name, app, id of a new session, clean (1), expiry in seconds
-- -> id, epoch, whether it was there (1), id of the one that went, fields and values
local name, app, new, clean, expiry = arg(), arg(), arg(), arg(), arg()
local time = redis.call('TIME')
local epoch = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(epoch / 1000)
local id = redis.call('HGET', B .. ':sid', name)
local gone = ''
if id then
  local S = B .. ':s:' .. id
  local last = tonumber(redis.call('HGET', S, 'e') or '0')
  if last >= epoch then
    epoch = last + 1
  end
  local ends = redis.call('HGET', S, 't')
  if clean == '1' or (ends and tonumber(ends) <= now) then
    discard(id)
    gone = id
  else
    local number = string.format('%.0f', epoch)
    redis.call('HSET', S, 'e', number, 'x', expiry)
    redis.call('HDEL', S, 't')
    redis.call('ZREM', B .. ':sx', id)
    return { id, number, '1', '', redis.call('HGETALL', S) }
  end
end
local number = string.format('%.0f', epoch)
if tonumber(expiry) == 0 then
  return { '', number, '0', gone, {} }
end
redis.call('HSET', B .. ':s:' .. new, 'k', name, 'p', app, 'e', number, 'x', expiry)
redis.call('HSET', B .. ':sid', name, new)
return { new, number, '0', gone, {} }
