-- session, id after which, limit -> ids, how each is handed over, bodies
local session, after, limit = arg(), arg(), arg()
local from = after == '' and '-' or '(' .. after
local ids = redis.call('ZRANGEBYLEX', B .. ':q:' .. session, from, '+', 'LIMIT', 0, limit)
if #ids == 0 then
  return { {}, {}, {} }
end
return {
  ids,
  redis.call('HMGET', B .. ':qh:' .. session, unpack(ids)),
  redis.call('HMGET', B .. ':msg', unpack(ids)),
}
