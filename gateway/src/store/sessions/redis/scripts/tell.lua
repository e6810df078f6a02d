-- Kind, number of the question (0: none), body; then the nodes that are told, none: all others -> those that were
local kind, ask, body = arg(), arg(), arg()
local nodes, told = {}, {}
while at < #ARGV do
  nodes[#nodes + 1] = arg()
end
if #nodes == 0 then
  nodes = others()
end
for _, node in ipairs(nodes) do
  if is_alive(node) then
    tell(node, kind, ask, body)
    told[#told + 1] = node
  end
end
return told
