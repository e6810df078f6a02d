-- A dead node, how many clients at most -> names of clients that were there and are nowhere now
local node, limit = arg(), arg()
local gone = {}
if is_alive(node) then
  return gone
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for _, name in ipairs(redis.call('SPOP', B .. ':of:' .. node, limit)) do
  local held = redis.call('HGET', B .. ':dev', name)
  if held and held:match('^%d+') == node then
    redis.call('HDEL', B .. ':dev', name)
  end
  local id = redis.call('HGET', B .. ':sid', name)
  local S = B .. ':s:' .. (id or '')
  if id and redis.call('HGET', S, 'w') == node then
    local ends = string.format('%.0f', now + tonumber(redis.call('HGET', S, 'x') or '0') * 1000)
    redis.call('HDEL', S, 'w')
    redis.call('HSET', S, 't', ends)
    redis.call('ZADD', B .. ':sx', ends, id)
    if is_app(name) then
      local app = redis.call('HGET', S, 'p') or ''
      local body = cjson.encode({ id = id, name = name, app = app, node = '' })
      tell_all('session_at', body)
      tell(me, 'session_at', 0, body)
    end
  end
  push(gone, name)
end
return gone
