-- now, then ids -> id, name, application, messages, bytes, fields and values, the node that has it or '' of each
local now = tonumber(arg())
local found = {}
while at < #ARGV do
  local id = arg()
  local S = B .. ':s:' .. id
  local kept = redis.call('HMGET', S, 'k', 'p', 'x', 't', 'w')
  if kept[1] then
    local node = kept[5] and is_alive(kept[5]) and kept[5] or ''
    if not kept[4] and node == '' then
      local ends = string.format('%.0f', now + tonumber(kept[3]) * 1000)
      redis.call('HSET', S, 't', ends)
      redis.call('ZADD', B .. ':sx', ends, id)
    end
    local fields, bytes = {}, 0
    if kept[1]:sub(1, 2) == 'a:' then
      fields = redis.call('HGETALL', S)
      for _, one in ipairs(redis.call('HVALS', B .. ':qh:' .. id)) do
        bytes = bytes + tonumber(one:match('^%d+'))
      end
    end
    push(found, {
      id, kept[1], kept[2] or '',
      redis.call('ZCARD', B .. ':q:' .. id), string.format('%.0f', bytes), fields, node,
    })
  end
end
return found
