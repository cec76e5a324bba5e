"""What the operator calls weaker than restricted is what the API server's own admission refuses, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from graftwork.plan.podsecurity import violations

from tests.golden import render

Spec = dict[str, Any]
Change = Callable[[Spec, Spec, Spec], Any]
"""Changes a pod's spec, given with its security context and that of its container vllm."""

# Privileged is not among them: this API server forbids it in every namespace (--allow-privileged=false), before the standard is asked.
VARIANTS: dict[str, Change] = {
    "as it is": lambda spec, pod, own: None,
    "another user": lambda spec, pod, own: pod.update(runAsUser=2000, runAsGroup=0, supplementalGroups=[4000]),
    "root": lambda spec, pod, own: pod.update(runAsUser=0),
    "perhaps root": lambda spec, pod, own: pod.update(runAsNonRoot=False),
    "perhaps root, not said": lambda spec, pod, own: pod.pop("runAsNonRoot"),
    "the engine as root": lambda spec, pod, own: own.update(runAsUser=0),
    "the engine perhaps as root": lambda spec, pod, own: own.update(runAsNonRoot=False),
    "every container says that it is not root": lambda spec, pod, own: (
        pod.pop("runAsNonRoot"),
        [each["securityContext"].update(runAsNonRoot=True) for each in (*spec["initContainers"], *spec["containers"])],
    ),
    "no profile": lambda spec, pod, own: pod.pop("seccompProfile"),
    "unconfined": lambda spec, pod, own: pod.update(seccompProfile={"type": "Unconfined"}),
    "a profile of the node": lambda spec, pod, own: pod.update(seccompProfile={"type": "Localhost", "localhostProfile": "a.json"}),
    "the engine unconfined": lambda spec, pod, own: own.update(seccompProfile={"type": "Unconfined"}),
    "escalation": lambda spec, pod, own: own.update(allowPrivilegeEscalation=True),
    "escalation, not said": lambda spec, pod, own: own.pop("allowPrivilegeEscalation"),
    "a capability": lambda spec, pod, own: own["capabilities"].update(add=["IPC_LOCK"]),
    "the harmless capability": lambda spec, pod, own: own["capabilities"].update(add=["NET_BIND_SERVICE"]),
    "nothing dropped": lambda spec, pod, own: own.pop("capabilities"),
    "not all dropped": lambda spec, pod, own: own["capabilities"].update(drop=["NET_RAW"]),
    "the node's network": lambda spec, pod, own: spec.update(hostNetwork=True),
    "the node's processes": lambda spec, pod, own: spec.update(hostPID=True),
    "the node's folder": lambda spec, pod, own: spec["volumes"].append({"name": "node", "hostPath": {"path": "/"}}),
    "a port of the node": lambda spec, pod, own: spec["containers"][0]["ports"][0].update(
        hostPort=spec["containers"][0]["ports"][0]["containerPort"]
    ),
    "a setting of the kernel": lambda spec, pod, own: pod.update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    "a label of SELinux": lambda spec, pod, own: own.update(seLinuxOptions={"user": "system_u"}),
    "no confinement by AppArmor": lambda spec, pod, own: own.update(appArmorProfile={"type": "Unconfined"}),
}


def template() -> Spec:
    """Return the pod spec of a golden case, without what only a real namespace has."""
    made = render.render(render.read("serving-cpu-s3"))
    (found,) = [item["spec"]["template"]["spec"] for item in made if item["kind"] == "Deployment"]
    return copy.deepcopy(found)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_verdict_is_the_admissions(admin: httpx.Client, namespace: str, variant: str) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    admin.patch(f"/api/v1/namespaces/{namespace}", json=label, headers={"Content-Type": "application/merge-patch+json"}).raise_for_status()
    spec = template()
    VARIANTS[variant](spec, spec["securityContext"], spec["containers"][0]["securityContext"])
    answer = admin.post(
        f"/api/v1/namespaces/{namespace}/pods?dryRun=All", json={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
    )
    assert answer.status_code == 201 or "restricted" in answer.text, answer.text
    assert (violations(spec) == []) == (answer.status_code == 201), (violations(spec), answer.text)
