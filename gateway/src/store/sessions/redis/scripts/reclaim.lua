-- Names, epochs, ids of their sessions or '' -> of each whether this node still has it: 1, or 0 where another has it or its
-- session is lost
local kept = {}
while at < #ARGV do
  local name, epoch, id = arg(), arg(), arg()
  local held = redis.call('HGET', B .. ':dev', name)
  local node = held and held:match('^%d+')
  -- A claim that is newer than what stands here was lost.
  local is_ours = not node or node == me or tonumber(held:match('%d+$')) <= tonumber(epoch) or not is_alive(node)
  if is_ours and id ~= '' and redis.call('HGET', B .. ':s:' .. id, 'e') ~= epoch then
    is_ours = false
  end
  if is_ours then
    if node and node ~= me then
      redis.call('SREM', B .. ':of:' .. node, name)
    end
    redis.call('HSET', B .. ':dev', name, me .. ' ' .. epoch)
    redis.call('SADD', B .. ':of:' .. me, name)
    if id ~= '' then
      redis.call('HSET', B .. ':s:' .. id, 'w', me)
      redis.call('HDEL', B .. ':s:' .. id, 't')
      redis.call('ZREM', B .. ':sx', id)
    end
  end
  kept[#kept + 1] = is_ours and 1 or 0
end
return kept
