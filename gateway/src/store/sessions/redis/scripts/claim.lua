-- name, app, id of a new session, clean (1), expiry in seconds, sessions at most (0: any number)
-- -> id, epoch, whether it was there (1), id of the one that went, fields and values, messages that wait for the device,
--    whether another node had it (1), whether there were too many sessions (1)
local name, app, new, clean, expiry, max = arg(), arg(), arg(), arg(), arg(), tonumber(arg())
local time = redis.call('TIME')
local epoch = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(epoch / 1000)
local held = redis.call('HGET', B .. ':dev', name)
local holder, before
if held then
  holder, before = held:match('^(%d+) (%d+)$')
  if tonumber(before) >= epoch then
    epoch = tonumber(before) + 1
  end
end
local id = redis.call('HGET', B .. ':sid', name)
if id then
  local last = tonumber(redis.call('HGET', B .. ':s:' .. id, 'e') or '0')
  if last >= epoch then
    epoch = last + 1
  end
end
local number = string.format('%.0f', epoch)

-- Where the client is: whoever had it, or has its will, is told that it came.
redis.call('HSET', B .. ':dev', name, me .. ' ' .. number)
redis.call('SADD', B .. ':of:' .. me, name)
local moved = '0'
local wills = redis.call('HGET', B .. ':willat', name)
local function came(present)
  if holder and holder ~= me then
    redis.call('SREM', B .. ':of:' .. holder, name)
    moved = '1'
  end
  for _, node in ipairs({ holder or me, wills or me }) do
    if node ~= me and is_alive(node) then
      tell(node, 'came', 0, cjson.encode({ name = name, app = app, epoch = number, present = present }))
      if wills == holder then
        return
      end
    end
  end
end

local waiting = '0'
if name:sub(1, 2) == 'd:' then
  waiting = redis.call('HGET', B .. ':mailc', name:sub(3)) or '0'
end
local gone = ''
if id then
  local S = B .. ':s:' .. id
  local ends = redis.call('HGET', S, 't')
  if clean == '1' or (ends and tonumber(ends) <= now) then
    discard(id)
    gone = id
  else
    redis.call('HSET', S, 'e', number, 'x', expiry, 'w', me)
    redis.call('HDEL', S, 't')
    redis.call('ZREM', B .. ':sx', id)
    came(true)
    if is_app(name) then
      tell_all('session_at', cjson.encode({ id = id, name = name, app = app, node = me }))
    end
    return { id, number, '1', '', redis.call('HGETALL', S), waiting, moved, '0' }
  end
end
came(false)
if tonumber(expiry) == 0 then
  return { '', number, '0', gone, {}, waiting, moved, '0' }
end
if max > 0 and redis.call('HLEN', B .. ':sid') >= max then
  return { '', number, '0', gone, {}, waiting, moved, '1' }
end
redis.call('HSET', B .. ':s:' .. new, 'k', name, 'p', app, 'e', number, 'x', expiry, 'w', me)
redis.call('HSET', B .. ':sid', name, new)
if is_app(name) then
  tell_all('session_at', cjson.encode({ id = new, name = name, app = app, node = me }))
end
return { new, number, '0', gone, {}, waiting, moved, '0' }
