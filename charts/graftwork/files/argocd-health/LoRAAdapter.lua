-- Health of a LoRAAdapter for Argo CD (argocd-cm, resource.customizations.health.graftwork.dev_LoRAAdapter).
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
if stalled ~= nil and stalled.status == "True" then
  hs.status = "Degraded"
  hs.message = stalled.reason .. ": " .. (stalled.message or "")
elseif ready ~= nil then
  hs.message = ready.reason .. ": " .. (ready.message or "")
  if ready.status == "True" then
    hs.status = "Healthy"
  elseif ready.reason == "NoDeployment" or ready.reason == "Superseded" then
    hs.status = "Suspended" -- published, and not asked for at the moment
  end
end
return hs
