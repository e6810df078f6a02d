-- A list of steps, each with its own arguments -> mail that is gone, queued messages that are gone, stale sessions
local mail_gone, queue_gone, stale = {}, {}, {}

local change = {}
change['subscribed'] = function(S)
  local filter, options = arg(), arg()
  redis.call('HSET', S, 'f:' .. filter, options)
end
change['unsubscribed'] = function(S)
  redis.call('HDEL', S, 'f:' .. arg())
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
change['suspended'] = function(S, id)
  local ends = arg()
  if redis.call('EXISTS', S) == 1 then
    redis.call('HSET', S, 't', ends)
    redis.call('ZADD', B .. ':sx', ends, id)
  end
end
change['ended'] = function(_, id)
  discard(id)
end

local step = {}
step['mail'] = function()
  local id, device, bytes, ends, body = arg(), arg(), arg(), arg(), arg()
  redis.call('HSET', B .. ':mail', id, body)
  redis.call('HSET', B .. ':mailto', id, bytes .. ' ' .. device)
  redis.call('ZADD', B .. ':mailx', ends, id)
  redis.call('ZADD', B .. ':mailbox:' .. device, 0, id)
  redis.call('HINCRBY', B .. ':mailc', device, 1)
  redis.call('HINCRBY', B .. ':mailb', device, bytes)
  redis.call('HSET', B .. ':last', 'mail', id)
end
step['mail_gone'] = function()
  push(mail_gone, drop_mail(arg()))
end
step['message'] = function()
  local id, ends, body, receivers = arg(), arg(), arg(), tonumber(arg())
  for _ = 1, receivers do
    local session, kept = arg(), arg()
    redis.call('ZADD', B .. ':q:' .. session, 0, id)
    redis.call('HSET', B .. ':qh:' .. session, id, kept)
    redis.call('SADD', B .. ':qs', session)
    redis.call('SADD', B .. ':msgs:' .. id, session)
  end
  if receivers > 0 then
    redis.call('HSET', B .. ':msg', id, body)
    if ends ~= '' then
      redis.call('ZADD', B .. ':msgx', ends, id)
    end
  end
  redis.call('HSET', B .. ':last', 'message', id)
end
step['message_gone'] = function()
  local session, id = arg(), arg()
  push(queue_gone, drop_queued(session, id))
end
step['session'] = function()
  local id, epoch, changes, arguments = arg(), arg(), tonumber(arg()), tonumber(arg())
  local S = B .. ':s:' .. id
  if redis.call('HGET', S, 'e') ~= epoch then
    push(stale, id)
    at = at + arguments
    return
  end
  for _ = 1, changes do
    change[arg()](S, id)
  end
end

while at < #ARGV do
  step[arg()]()
end
return { mail_gone, queue_gone, stale }
