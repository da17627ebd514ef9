-- history: what other scripts include to know of a chunk's earlier runs; `chunk` is what claim.lua makes of its payload.

-- @include crashes
-- @include done
-- @include orders
-- @include ranges

-- What is known of a chunk's earlier runs.
local function look_into(chunk)
  local batch = chunk.batch
  chunk.holder, chunk.held_start, chunk.held_stop, chunk.is_missed = read_holder(batch.header, chunk.id)
  chunk.crashes = batch.has_crashes and read_crashes(batch.header, chunk.id) or {}
  chunk.retried = batch.has_retries and read_range(batch.header .. ':retries', chunk.start, chunk.stop) or {}
  chunk.done = ask('GETRANGE', batch.header .. ':done', math.floor(chunk.first / 8), math.floor((chunk.first + chunk.count) / 8))
end

local function done_of(chunk)
  return count_done(chunk.done, chunk.first, chunk.start, chunk.stop)
end

-- What a claim tells of a chunk.
local function describe(chunk, lifetime)
  local batch = chunk.batch
  local told = {
    chunk.id, chunk.payload, batch.options, batch.deadline,
    chunk.text or ask('HGET', batch.header .. ':chunks', string.format('%d', chunk.first)), chunk.done,
    batch.has_crashes and ask('HGET', batch.header .. ':crashes', chunk.id),
    batch.has_orders and read_orders(batch.header, chunk.id, chunk.start, chunk.stop, '', lifetime),
  }
  -- Some commands' replies may be nil inside a table only as false.
  for at = 1, 8 do told[at] = told[at] or false end
  for _, value in ipairs(chunk.retried) do table.insert(told, value) end
  return told
end
