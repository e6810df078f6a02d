-- device, or '' and a time up to which, limit -> what is gone
local device, ends, limit = arg(), arg(), tonumber(arg())
local ids
if device ~= '' then
  ids = redis.call('ZRANGE', B .. ':mailbox:' .. device, 0, -1)
else
  ids = redis.call('ZRANGEBYSCORE', B .. ':mailx', '-inf', ends, 'LIMIT', 0, limit)
end
local gone = {}
for _, id in ipairs(ids) do
  push(gone, drop_mail(id))
end
return gone
