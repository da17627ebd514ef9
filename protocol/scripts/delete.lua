-- delete: take a batch's header away, and let its workers know: from then on nothing of it is run or recorded any more, and its
-- other keys are removed by the caller. Safe to call twice.
-- Reads and writes: KEYS 1 header, 2 batches; the header of its parent
-- ARGV 1 batch id
-- Returns 1, or 0 if there is no such batch
-- @include orders
-- A header of another type tells nothing, and goes, too.
local parent = ask('HGET', KEYS[1], 'parent')
if parent then
  local header, kept = 'straggler:batch:' .. parent, {}
  for child in string.gmatch(ask('HGET', header, 'children') or '', '%S+') do
    if child ~= ARGV[1] then table.insert(kept, child) end
  end
  if #kept > 0 then
    redis.call('HSET', header, 'children', table.concat(kept, ' '))
  else
    ask('HDEL', header, 'children')
  end
end
ask('ZREM', KEYS[2], ARGV[1])
local is_there = redis.call('DEL', KEYS[1])
hint(KEYS[1])
return is_there
