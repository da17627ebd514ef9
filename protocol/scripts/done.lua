-- done: what other scripts include to count the results that a batch's done bits tell of.

-- How many of the jobs start <= index < stop have their result, by the bits from the byte of job `first`.
local function count_done(bits, first, start, stop)
  local count, from = 0, first - first % 8
  for at = 1, #(bits or '') do
    local byte = string.byte(bits, at)
    for place = 0, byte == 0 and -1 or 7 do
      local index = from + (at - 1) * 8 + place
      if index >= start and index < stop and math.floor(byte / 2 ^ (7 - place)) % 2 == 1 then count = count + 1 end
    end
  end
  return count
end
