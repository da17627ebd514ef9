-- control: tell a worker what was decided for chunks that it holds since it last asked. Safe to call twice.
-- Reads of each chunk its batch's header and cancelled; writes heard
-- ARGV 1 lifetime of an open batch ms, then for each chunk: id, batch id, first job, the one behind the last, decisions known
-- Returns for each chunk {its id, what was decided (see orders.lua; nil: nothing new; "gone": there is no such batch any more)}
-- @include orders
local reply = {}
for at = 2, #ARGV, 5 do
  local header = 'straggler:batch:' .. ARGV[at + 1]
  local told = read_orders(header, ARGV[at], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), ARGV[at + 4], ARGV[1])
  if not told and redis.call('EXISTS', header) == 0 then told = 'gone' end
  table.insert(reply, {ARGV[at], told})
end
return reply
