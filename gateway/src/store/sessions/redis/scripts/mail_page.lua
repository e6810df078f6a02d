-- device, id after which, limit, now -> ids, bodies
local device, after, limit, now = arg(), arg(), tonumber(arg()), tonumber(arg())
local from = after == '' and '-' or '(' .. after
local ids = {}
while #ids < limit do
  local page = redis.call('ZRANGEBYLEX', B .. ':mailbox:' .. device, from, '+', 'LIMIT', 0, limit)
  if #page == 0 then
    break
  end
  for _, id in ipairs(page) do
    local ends = redis.call('ZSCORE', B .. ':mailx', id)
    if #ids < limit and ends and tonumber(ends) > now then
      ids[#ids + 1] = id
    end
  end
  from = '(' .. page[#page]
end
if #ids == 0 then
  return { {}, {} }
end
return { ids, redis.call('HMGET', B .. ':mail', unpack(ids)) }
