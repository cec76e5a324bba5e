"""What of a pod is weaker than the restricted Pod Security Standard, by the standard's own checks.

The API server refuses such a pod only in namespaces that enforce the standard; a status says it everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Spec = Mapping[str, Any]

_VOLUMES = frozenset({"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"})
_CAPABILITIES = frozenset({"NET_BIND_SERVICE"})
_PROFILES = ("RuntimeDefault", "Localhost")


def merged(own: Mapping[str, Any], given: Any) -> dict[str, Any]:
    """Return Graftwork's settings with the user's over them; what of these was not set changes nothing. Lists replace each other."""
    said = given.model_dump(mode="json", by_alias=True, exclude_none=True) if given is not None else {}
    found = dict(own)
    for key, value in said.items():
        if isinstance(value, Mapping) and key == "capabilities":
            found[key] = {**found.get(key, {}), **{name: names for name, names in value.items() if names}}
        elif value not in ([], {}):
            found[key] = value
    return found


def violations(spec: Spec) -> list[str]:
    """Return what of a pod's spec the restricted standard forbids: place, value and rule."""
    pod: Spec = spec.get("securityContext") or {}
    return [*_of_the_pod(spec, pod), *(said for container in _containers(spec) for said in _of_a_container(container, pod))]


def _containers(spec: Spec) -> list[Spec]:
    return [container for kind in ("initContainers", "containers", "ephemeralContainers") for container in spec.get(kind) or []]


def _of_the_pod(spec: Spec, pod: Spec) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"{name} is true, must be left out"
    for volume in spec.get("volumes") or []:
        kinds = set(volume) - {"name"} - _VOLUMES
        if kinds:
            yield f"volume {volume['name']} is a {kinds.pop()}, must be one of {', '.join(sorted(_VOLUMES))}"
    yield from _of_both("securityContext", pod)
    if pod.get("sysctls"):
        yield "securityContext.sysctls are set, must be left out"


def _of_a_container(container: Spec, pod: Spec) -> Iterator[str]:
    own: Spec = container.get("securityContext") or {}
    place = f"container {container['name']}"
    yield from _of_both(f"{place}: securityContext", own)
    if own.get("privileged"):
        yield f"{place}: securityContext.privileged is true, must be false"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{place}: securityContext.allowPrivilegeEscalation must be false"
    if own.get("procMount") not in (None, "Default"):
        yield f"{place}: securityContext.procMount is {own['procMount']}, must be left out"
    yield from _capabilities(place, own.get("capabilities") or {})
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield f"{place}: securityContext.runAsNonRoot must be true, there or for the pod"
    if (own.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type") not in _PROFILES:
        yield f"{place}: securityContext.seccompProfile.type must be {' or '.join(_PROFILES)}, there or for the pod"
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield f"{place}: a port has a hostPort, must be left out"


def _capabilities(place: str, capabilities: Spec) -> Iterator[str]:
    if "ALL" not in (capabilities.get("drop") or []):
        yield f"{place}: securityContext.capabilities.drop must have ALL"
    added = sorted(set(capabilities.get("add") or []) - _CAPABILITIES)
    if added:
        yield f"{place}: securityContext.capabilities.add has {', '.join(added)}, must have none but {', '.join(sorted(_CAPABILITIES))}"


def _of_both(place: str, context: Spec) -> Iterator[str]:
    """Yield what pods and containers must not have alike."""
    if context.get("runAsUser") == 0:
        yield f"{place}.runAsUser is 0, must not be root"
    if (context.get("appArmorProfile") or {}).get("type") == "Unconfined":
        yield f"{place}.appArmorProfile.type is Unconfined, must be RuntimeDefault or Localhost"
    labels: Spec = context.get("seLinuxOptions") or {}
    if labels.get("user") or labels.get("role"):
        yield f"{place}.seLinuxOptions set user or role, must be left out"


def told(spec: Spec) -> str:
    """Return what the condition says of a pod's spec; nothing if there is nothing to say."""
    found = violations(spec) if spec else []
    if not found:
        return ""
    return (
        f"the pods are weaker than the restricted Pod Security Standard, so namespaces that enforce it refuse them: {'; '.join(found)}. "
        "Remove that from spec.pod.securityContext or spec.pod.containerSecurityContext, or take it as told"
    )
