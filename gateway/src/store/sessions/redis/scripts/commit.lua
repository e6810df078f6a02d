-- A list of steps, each with its own arguments -> mail that is gone, queued messages that are gone, stale sessions, what
-- became of messages that the store was to number: id, whether its sender was with another connection by then (1),
-- whether another node has the device (1), whether there was no room for the device (1), sessions without room; messages to devices and to applications that wait, and their bytes
local mail_gone, queue_gone, stale, placed = {}, {}, {}, {}

-- An id that is greater than every one before, whichever node it is for: time, and a number behind it, in base 32.
local ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'
local EPOCH = 1704067200000
local function text(number, length)
  local digits = {}
  for place = length, 1, -1 do
    local digit = number % 32
    digits[place] = ALPHABET:sub(digit + 1, digit + 1)
    number = (number - digit) / 32
  end
  return table.concat(digits)
end
local high, low
local function next_id()
  if not high then
    local last = redis.call('HMGET', B .. ':last', 'high', 'low')
    high, low = tonumber(last[1] or '0'), tonumber(last[2] or '0')
    local time = redis.call('TIME')
    local now = (tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - EPOCH) * 4
    if now > high then
      high, low = now, -1
    end
  end
  low = low + 1
  if low >= 1048576 then
    high, low = high + 1, 0
  end
  return text(high, 9) .. text(low, 4)
end

local current
-- The message that these steps are about.
local function numbered(id)
  if id == '*' then
    return current.id
  end
  return id
end

-- Each node is told once of a device or a session for which something waits, however much it is.
local hinted = {}
local function hint(node, kind, whom)
  local key = node .. kind .. whom
  if not hinted[key] then
    hinted[key] = true
    tell(node, kind, 0, whom)
  end
end

local function is_over(limit, amount)
  return limit ~= '' and amount > tonumber(limit)
end
local function total(of, field)
  return tonumber(redis.call('HGET', B .. of, field) or '0')
end

local change = {}
change['subscribed'] = function(S, id, name)
  local filter, options = arg(), arg()
  redis.call('HSET', S, 'f:' .. filter, options)
  if is_app(name) then
    tell_all('subscribed', cjson.encode({ name = name, id = id, filter = filter, options = options }))
  end
end
change['unsubscribed'] = function(S, id, name)
  local filter = arg()
  redis.call('HDEL', S, 'f:' .. filter)
  if is_app(name) then
    tell_all('subscribed', cjson.encode({ name = name, id = id, filter = filter, options = '' }))
  end
end
change['taken'] = function(S)
  redis.call('HSET', S, 'i:' .. arg(), '')
end
change['released'] = function(S)
  redis.call('HDEL', S, 'i:' .. arg())
end
-- One identifier is one exchange: what still had it is over.
change['sending'] = function(S)
  local packet, message = arg(), arg()
  local before = redis.call('HGET', S, 'q:' .. packet)
  if before then
    redis.call('HDEL', S, 'o:' .. before)
  end
  local place = redis.call('HINCRBY', S, 'n', 1)
  redis.call('HSET', S, 'q:' .. packet, message, 'o:' .. message, place .. ' ' .. packet .. ' 0')
end
change['received'] = function(S)
  local message = arg()
  local kept = redis.call('HGET', S, 'o:' .. message)
  if kept then
    redis.call('HSET', S, 'o:' .. message, (kept:gsub('%d$', '1')))
  end
end
change['completed'] = function(S)
  local message = arg()
  local kept = redis.call('HGET', S, 'o:' .. message)
  if kept then
    redis.call('HDEL', S, 'o:' .. message, 'q:' .. kept:match('^%d+ (%d+)'))
  end
end
change['suspended'] = function(S, id, name)
  local ends = arg()
  if redis.call('EXISTS', S) == 1 then
    redis.call('HSET', S, 't', ends)
    redis.call('HDEL', S, 'w')
    redis.call('ZADD', B .. ':sx', ends, id)
    if is_app(name) then
      local app = redis.call('HGET', S, 'p') or ''
      tell_all('session_at', cjson.encode({ id = id, name = name, app = app, node = '' }))
    end
  end
end
change['ended'] = function(_, id)
  discard(id)
end

local step = {}
-- The store numbers what follows under '*'; what is late is left out.
step['new'] = function()
  local client, epoch = arg(), arg()
  local late = is_past(client, epoch)
  current = { id = next_id(), late = late, online = '0', full = '0', refused = {} }
  placed[#placed + 1] = current
end
step['mail'] = function()
  local id, device, bytes, ends, body = numbered(arg()), arg(), arg(), arg(), arg()
  local max, max_total, max_bytes = arg(), arg(), arg()
  if current and current.late then
    return
  end
  if is_over(max, tonumber(redis.call('HGET', B .. ':mailc', device) or '0') + 1)
      or is_over(max_total, total(':mailt', 'n') + 1)
      or is_over(max_bytes, total(':mailt', 'b') + tonumber(bytes)) then
    current.full = '1'
    return
  end
  redis.call('HSET', B .. ':mail', id, body)
  redis.call('HSET', B .. ':mailto', id, bytes .. ' ' .. device)
  redis.call('ZADD', B .. ':mailx', ends, id)
  redis.call('ZADD', B .. ':mailbox:' .. device, 0, id)
  redis.call('HINCRBY', B .. ':mailc', device, 1)
  redis.call('HINCRBY', B .. ':mailb', device, bytes)
  redis.call('HINCRBY', B .. ':mailt', 'n', 1)
  redis.call('HINCRBY', B .. ':mailt', 'b', bytes)
  redis.call('HSET', B .. ':last', 'mail', id)
  local held = redis.call('HGET', B .. ':dev', 'd:' .. device)
  local node = held and held:match('^%d+')
  if node and node ~= me and is_alive(node) then
    hint(node, 'mail', device)
    if current then
      current.online = '1'
    end
  end
end
step['mail_gone'] = function()
  push(mail_gone, drop_mail(arg()))
end
step['message'] = function()
  local id, ends, body, receivers = numbered(arg()), arg(), arg(), tonumber(arg())
  local max, max_bytes, max_total = arg(), arg(), arg()
  if current and current.late then
    at = at + 2 * receivers
    return
  end
  local stored = 0
  for _ = 1, receivers do
    local session, kept = arg(), arg()
    local bytes = kept:match('^%d+')
    local S = B .. ':s:' .. session
    if is_over(max, redis.call('ZCARD', B .. ':q:' .. session) + 1)
        or is_over(max_bytes, total(':qb', session) + tonumber(bytes))
        or is_over(max_total, total(':qt', 'b') + tonumber(bytes)) then
      push(current.refused, session)
    elseif max == '' or redis.call('EXISTS', S) == 1 then
      redis.call('ZADD', B .. ':q:' .. session, 0, id)
      redis.call('HSET', B .. ':qh:' .. session, id, kept)
      redis.call('HINCRBY', B .. ':qb', session, bytes)
      redis.call('HINCRBY', B .. ':qt', 'n', 1)
      redis.call('HINCRBY', B .. ':qt', 'b', bytes)
      redis.call('SADD', B .. ':qs', session)
      redis.call('SADD', B .. ':msgs:' .. id, session)
      stored = stored + 1
      local node = redis.call('HGET', S, 'w')
      if node and node ~= me and is_alive(node) then
        hint(node, 'queue', session)
      end
    end
  end
  if stored > 0 then
    redis.call('HSET', B .. ':msg', id, body)
    if ends ~= '' then
      redis.call('ZADD', B .. ':msgx', ends, id)
    end
  end
  redis.call('HSET', B .. ':last', 'message', id)
end
-- What sessions of applications on another node are to be handed now.
step['forward'] = function()
  local node, body = arg(), arg()
  if not current.late and is_alive(node) then
    tell(node, 'publish', 0, body)
  end
end
-- A connection is gone: its client is nowhere, unless it has come back.
step['left'] = function()
  local name, epoch = arg(), arg()
  if redis.call('HGET', B .. ':dev', name) == me .. ' ' .. epoch then
    redis.call('HDEL', B .. ':dev', name)
  end
  local held = redis.call('HGET', B .. ':dev', name)
  if not held or held:match('^%d+') ~= me then
    redis.call('SREM', B .. ':of:' .. me, name)
  end
end
step['message_gone'] = function()
  local session, id = arg(), arg()
  push(queue_gone, drop_queued(session, id))
end
step['session'] = function()
  local id, epoch, changes, arguments = arg(), arg(), tonumber(arg()), tonumber(arg())
  local S = B .. ':s:' .. id
  local kept = redis.call('HMGET', S, 'e', 'k')
  if kept[1] ~= epoch then
    push(stale, id)
    at = at + arguments
    return
  end
  for _ = 1, changes do
    change[arg()](S, id, kept[2])
  end
end

while at < #ARGV do
  step[arg()]()
end
if high then
  redis.call('HSET', B .. ':last', 'high', string.format('%.0f', high), 'low', low)
end
local numbers = {}
for _, one in ipairs(placed) do
  numbers[#numbers + 1] = { one.id, one.late and '1' or '0', one.online, one.full, one.refused }
end
return {
  mail_gone, queue_gone, stale, numbers,
  { total(':mailt', 'n'), total(':mailt', 'b'), total(':qt', 'n'), total(':qt', 'b') },
}
