-- payloads: what other scripts include to read what arq's queue carries for a chunk (protocol/connection.py).
local LARGEST_CHUNK = 1000

local function is_index(number)
  return type(number) == 'number' and number >= 0 and number % 1 == 0
end

-- What the payload says of the chunk, or nil where it is not ours; `start` and `stop`: which of its jobs are to run.
local function read_payload(id, payload)
  local ok, job = pcall(cjson.decode, payload)
  if not ok or type(job) ~= 'table' or type(job.a) ~= 'table' or type(job.et) ~= 'number' then return nil end
  local batch, first, count, index = job.a[1], job.a[2], job.a[3], job.a[4]
  if job.f ~= 'straggler_chunk' or type(batch) ~= 'string' then return nil end
  if not is_index(first) or not is_index(count) or count < 1 or count > LARGEST_CHUNK then return nil end
  if index ~= nil and not (is_index(index) and index >= first and index < first + count) then return nil end
  return {
    id = id, payload = payload, batch = batch, first = first, count = count, index = index, enqueued_ms = job.et,
    jobs = index and 1 or count, start = index or first, stop = (index or first + count - 1) + 1,
  }
end
