-- Health of a FineTuneJob for Argo CD (argocd-cm, resource.customizations.health.graftwork.dev_FineTuneJob).
local hs = { status = "Progressing", message = "Waiting for the operator" }
local status = obj.status
if status == nil or status.conditions == nil then
  return hs
end
if status.observedGeneration ~= obj.metadata.generation then
  hs.message = "Waiting for the operator to see the new spec"
  return hs
end
local seen = {}
for _, condition in ipairs(status.conditions) do
  seen[condition.type] = condition
end
local stalled, ready = seen.Stalled, seen.Ready
if ready ~= nil then
  hs.message = ready.reason .. ": " .. (ready.message or "")
end
if stalled ~= nil and stalled.status == "True" then
  hs.status = "Degraded"
  hs.message = stalled.reason .. ": " .. (stalled.message or "")
elseif status.phase == "Succeeded" then
  hs.status = "Healthy"
elseif status.phase == "Rejected" or status.phase == "Failed" then
  hs.status = "Degraded"
elseif status.phase == "Suspended" then
  hs.status = "Suspended"
end
return hs
