-- redrive: begin a batch of some jobs of another one, its parent, and link the two.
-- Safe to call twice: a batch that is there is not begun anew, and what it consists of stays as it is.
-- Reads and writes: KEYS 1 header, 2 origins, 3 where its origins were written, 4 the parent's header; its ancestors' keys
-- ARGV 1 batch id, 2 queue name, 3 options (JSON), 4 keep_results ms, 5 open lifetime ms, 6 batches kept,
--      7 the batch's deadline, s from now ("" for none), 8 further fields of its header (JSON object); "parent" is one
-- Returns {jobs that are to be in it (-1: the parent is gone, -2: there is such a batch, and it is another one),
--          Redis' time in s, in us, jobs that are in it already}
-- @include beginning
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local more = cjson.decode(ARGV[8])

-- Whoever asks for the results of the whole lineage needs them all: a redrive keeps its ancestors for as long again.
local function keep_ancestors(id)
  for _ = 1, 100 do
    local header = 'straggler:batch:' .. id
    local fields = redis.call('HMGET', header, 'finished_at', 'keep_ms', 'parent')
    local keep_ms = tonumber(fields[2] or '')
    if fields[1] and keep_ms then
      for _, suffix in ipairs({'', ':chunks', ':done', ':results', ':origins', ':attempts'}) do
        if redis.call('PTTL', header .. suffix) < keep_ms then redis.call('PEXPIRE', header .. suffix, keep_ms) end
      end
    end
    if not fields[3] then return end
    id = fields[3]
  end
end

local function link()
  local children = redis.call('HGET', KEYS[4], 'children')
  redis.call('HSET', KEYS[4], 'children', children and children .. ' ' .. ARGV[1] or ARGV[1])
end

if redis.call('EXISTS', KEYS[1]) == 0 then
  if redis.call('EXISTS', KEYS[4]) == 0 then return {-1, tonumber(time[1]), tonumber(time[2]), 0} end
  if redis.call('EXISTS', KEYS[3]) == 1 then
    redis.call('RENAME', KEYS[3], KEYS[2])
    redis.call('PEXPIRE', KEYS[2], ARGV[5])
  end
  more.redriven = string.format('%d', redis.call('STRLEN', KEYS[2]) / 8)
  if ARGV[7] ~= '' then more.deadline = string.format('%.6f', time[1] + time[2] / 1000000 + ARGV[7]) end
  begin_batch(ARGV[1], ARGV[2], ARGV[3], ARGV[4], more, now, ARGV[5], ARGV[6])
  link()
  keep_ancestors(more.parent)
end
redis.call('DEL', KEYS[3])
local fields = redis.call('HMGET', KEYS[1], 'parent', 'redriven', 'total')
if fields[1] ~= more.parent then return {-2, tonumber(time[1]), tonumber(time[2]), 0} end
return {tonumber(fields[2]), tonumber(time[1]), tonumber(time[2]), tonumber(fields[3])}
