-- Health of an LLMDeployment for Argo CD (argocd-cm, resource.customizations.health.graftwork.dev_LLMDeployment).
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
elseif obj.spec.replicas == 0 then
  hs.status = "Suspended"
  hs.message = "Stopped: replicas is 0"
elseif ready ~= nil then
  hs.message = ready.reason .. ": " .. (ready.message or "")
  if ready.status == "True" then
    hs.status = "Healthy"
  end
end
return hs
