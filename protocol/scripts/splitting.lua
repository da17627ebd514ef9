-- splitting: what other scripts include to cut a chunk in two, as if its producer had done so.
-- A chunk's jobs are joined by ",\n", which stands nowhere else in it: JSON escapes line breaks (protocol/chunks.py). So
-- its text is cut without being read; a 1 MiB chunk of 256 jobs costs 0.3 ms, one of no-op jobs 5 us.
local JOINT = ',\n'

-- Cut the text of a chunk behind its first jobs; returns both texts, or nil where they are no jobs as we join them.
local function cut_text(text, jobs)
  local open, close = 1, ']'
  if string.sub(text, 1, 1) == '{' then
    open, close = select(2, string.find(text, ',"args":[', 1, true)), ']}'
  end
  local at = open
  for _ = 1, jobs do
    at = at and string.find(text, JOINT, at + 1, true)
  end
  if not at then return nil end
  return string.sub(text, 1, at - 1) .. close, string.sub(text, 1, open) .. string.sub(text, at + #JOINT)
end

local function write_payload(batch, first, jobs, index, enqueued_ms)
  local where = string.format('"%s",%.0f,%.0f', batch, first, jobs)
  if index then where = where .. string.format(',%.0f', index) end
  return string.format('{"t":null,"f":"straggler_chunk","a":[%s],"k":{},"et":%.0f}', where, enqueued_ms)
end
