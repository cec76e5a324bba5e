"""What every Job of ours has: one pod at a time, no API token, restricted, and no second attempt where that cannot help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.facts.reported import DEFINITIVE_EXITS
from graftwork.plan import pods
from graftwork.plan.pods import Manifest


def job(
    metadata: Manifest, *, template: Manifest, containers: Sequence[Manifest], init: Sequence[Manifest] = (), pod: Mapping[str, Any], **spec: Any
) -> Manifest:
    """Return a Job. `template` is its pods' metadata, `pod` and `spec` are what else their spec and the Job's have.

    A container that ends with 64 or 65 fails it at once, since another attempt ends the same way; what the cluster did to a pod does not count.
    """
    starting = {"initContainers": list(init)} if init else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            **spec,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",  # a GPU, or a place in the store, is not asked for twice while the old pod still holds it
            "podFailurePolicy": {"rules": _failure_rules([*containers, *init])},
            "template": {
                "metadata": template,
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": pods.pod_security(),
                    **starting,
                    "containers": list(containers),
                    **pod,
                },
            },
        },
    }


def _failure_rules(containers: Sequence[Manifest]) -> list[Manifest]:
    fail = [
        {"action": "FailJob", "onExitCodes": {"containerName": each["name"], "operator": "In", "values": list(DEFINITIVE_EXITS)}}
        for each in containers
    ]
    return [*fail, {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
