-- Names and wills; one that is empty is over
while at < #ARGV do
  local name, will = arg(), arg()
  local node = redis.call('HGET', B .. ':willat', name)
  if will == '' then
    -- One that its client has left with another node since stays.
    if node and (node == me or not is_alive(node)) then
      redis.call('HDEL', B .. ':will', name)
      redis.call('HDEL', B .. ':willat', name)
    end
    redis.call('SREM', B .. ':wills:' .. me, name)
  else
    redis.call('HSET', B .. ':will', name, will)
    redis.call('HSET', B .. ':willat', name, me)
    redis.call('SADD', B .. ':wills:' .. me, name)
    if node and node ~= me then
      redis.call('SREM', B .. ':wills:' .. node, name)
    end
  end
end
return 1
