-- Begins every script. KEYS[1] is the hash tag that all keys share; ARGV[1] is the number of the node that asks, which
-- must have its lease.
local B = KEYS[1]
local me = ARGV[1]
if redis.call('EXISTS', B .. ':lease:' .. me) == 0 then
  return redis.error_reply('FENCED the lease of this node has ended')
end
local at = 1
local function arg()
  at = at + 1
  return ARGV[at]
end

local function is_alive(node)
  return redis.call('EXISTS', B .. ':lease:' .. node) == 1
end

-- Whether a client, where one is named, has been claimed by another connection since the claim of this epoch.
local function is_past(name, epoch)
  local held = name ~= '' and redis.call('HGET', B .. ':dev', name)
  return held and tonumber(held:match('%d+$')) > tonumber(epoch) or false
end

-- The other nodes that have their leases.
local function others()
  local found = {}
  for _, node in ipairs(redis.call('SMEMBERS', B .. ':nodes')) do
    if node ~= me and is_alive(node) then
      found[#found + 1] = node
    end
  end
  return found
end

-- Tells a node something, under the next of its numbers.
local function tell(node, kind, ask, body)
  local seq = redis.call('HINCRBY', B .. ':told', node, 1)
  local cap = redis.call('HGET', B .. ':node:' .. node, 'c') or '1000'
  redis.call('XADD', B .. ':in:' .. node, 'MAXLEN', '~', cap, '*', 's', seq, 'f', me, 'k', kind, 'a', ask, 'b', body)
end

-- Takes a message to a device out; gives what it was.
local function drop_mail(id)
  local to = redis.call('HGET', B .. ':mailto', id)
  if not to then
    return nil
  end
  local bytes, device = to:match('^(%d+) (.*)$')
  redis.call('HDEL', B .. ':mailto', id)
  redis.call('HDEL', B .. ':mail', id)
  redis.call('ZREM', B .. ':mailx', id)
  redis.call('ZREM', B .. ':mailbox:' .. device, id)
  redis.call('HINCRBY', B .. ':mailt', 'n', -1)
  redis.call('HINCRBY', B .. ':mailt', 'b', '-' .. bytes)
  if redis.call('HINCRBY', B .. ':mailc', device, -1) <= 0 then
    redis.call('HDEL', B .. ':mailc', device)
    redis.call('HDEL', B .. ':mailb', device)
  else
    redis.call('HINCRBY', B .. ':mailb', device, '-' .. bytes)
  end
  return { id, bytes, device }
end

-- Takes a message out of the queue of a session; gives what it was.
local function drop_queued(session, id)
  local kept = redis.call('HGET', B .. ':qh:' .. session, id)
  if not kept then
    return nil
  end
  local bytes = kept:match('^%d+')
  redis.call('HDEL', B .. ':qh:' .. session, id)
  redis.call('ZREM', B .. ':q:' .. session, id)
  redis.call('HINCRBY', B .. ':qt', 'n', -1)
  redis.call('HINCRBY', B .. ':qt', 'b', '-' .. bytes)
  if redis.call('EXISTS', B .. ':q:' .. session) == 0 then
    redis.call('SREM', B .. ':qs', session)
    redis.call('HDEL', B .. ':qb', session)
  else
    redis.call('HINCRBY', B .. ':qb', session, '-' .. bytes)
  end
  redis.call('SREM', B .. ':msgs:' .. id, session)
  if redis.call('EXISTS', B .. ':msgs:' .. id) == 0 then
    redis.call('HDEL', B .. ':msg', id)
    redis.call('ZREM', B .. ':msgx', id)
  end
  return { session, id, bytes }
end

-- Tells all other nodes something.
local function tell_all(kind, body)
  for _, node in ipairs(others()) do
    tell(node, kind, 0, body)
  end
end

-- What applications have is known on every node.
local function is_app(name)
  return name and name:sub(1, 2) == 'a:'
end

-- Ends a session, but for what waits for it.
local function discard(id)
  local S = B .. ':s:' .. id
  local name = redis.call('HGET', S, 'k')
  if is_app(name) then
    tell_all('session_ended', cjson.encode({ id = id, name = name, app = redis.call('HGET', S, 'p') or '' }))
  end
  if name and redis.call('HGET', B .. ':sid', name) == id then
    redis.call('HDEL', B .. ':sid', name)
  end
  redis.call('DEL', S)
  redis.call('ZREM', B .. ':sx', id)
end

local function forget_retained(device, topic)
  local field = device .. '\n' .. topic
  redis.call('HDEL', B .. ':ret', field)
  redis.call('HDEL', B .. ':rete', field)
  redis.call('ZREM', B .. ':retx', field)
  redis.call('SREM', B .. ':retd:' .. device, topic)
end

local function push(list, item)
  if item then
    list[#list + 1] = item
  end
end
