-- Lease in ms, what is known of this node, the last of its messages that it has seen
-- -> how many wait for it; number, name, what is known, whether it has its lease (1) of each node; the time in ms; which
-- process answers, '' where it does not say
local lease, record, seen = arg(), arg(), arg()
redis.call('PEXPIRE', B .. ':lease:' .. me, lease)
redis.call('HSET', B .. ':node:' .. me, 'r', record)
local inbox = B .. ':in:' .. me
if seen ~= '' then
  redis.call('XTRIM', inbox, 'MINID', seen)
end
local nodes = {}
for _, node in ipairs(redis.call('SMEMBERS', B .. ':nodes')) do
  local known = redis.call('HMGET', B .. ':node:' .. node, 'n', 'r')
  nodes[#nodes + 1] = { node, known[1] or '', known[2] or '', is_alive(node) and 1 or 0 }
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local process = redis.call('INFO', 'server'):match('run_id:(%w+)') or ''
return { redis.call('XLEN', inbox), nodes, now, process }
