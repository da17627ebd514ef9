-- places: what other scripts include to know which jobs a chunk consists of.

-- Which jobs a chunk consists of, start <= index < stop, as its payload says; nil where that says nothing.
local function range_of(payload)
  local first, count, index = string.match(payload or '', '"a":%["[^"]*",(%d+),(%d+),?(%d*)%]')
  if not first or #count > 4 then return nil end
  if index ~= '' then return tonumber(index), index + 1 end
  return tonumber(first), first + count
end
