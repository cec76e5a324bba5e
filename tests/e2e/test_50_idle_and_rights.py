"""Idle is idle, and the operator has exactly the rights that it uses."""

from __future__ import annotations

import threading

from tests.e2e.service import Service
from tests.harness import audit, install, machine
from tests.harness.kube import Kube

IDLE_SECONDS = 75  # more than one resync: the tests install the operator with resyncSeconds 30; `make bench-loop` watches for 5 minutes


def test_an_idle_operator_writes_nothing_but_its_lease(taught: Service, kube: Kube) -> None:
    kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=120)
    log = machine.audit_log()
    begin = log.stat().st_size
    assert not threading.Event().wait(IDLE_SECONDS)  # the absence of writes is what is waited for: there is no event for it
    assert audit.writes(log, offset=begin) == {}
    begin = log.stat().st_size
    generation = kube.get("llmdeployment", "tiny")["metadata"]["generation"]  # type: ignore[index]
    kube.patch(
        "llmdeployment", "tiny", {"spec": {"pod": {"annotations": {}}, "adapters": {"maxLoaded": 16}, "service": {"port": 8000}, "replicas": 1}}
    )
    kube.patch("llmdeployment", "tiny", {"spec": {"adapters": {"selector": {"matchLabels": {"graftwork.dev/none": "such"}}}}})
    kube.wait("configmap", "tiny-adapters", lambda item: '"adapters":[]' in item["data"]["adapters.json"], 30, "emptied")
    kube.patch("llmdeployment", "tiny", {"spec": {"adapters": {"selector": None}}})
    kube.wait("configmap", "tiny-adapters", lambda item: '"adapters":[]' not in item["data"]["adapters.json"], 30, "filled again")
    assert audit.writes(log, offset=begin), "the same query must count the writes of an edit"
    assert kube.get("llmdeployment", "tiny")["metadata"]["generation"] > generation  # type: ignore[index]
    taught.until_answer("medical", "swordfish", timeout=30)


def test_the_operators_verbs_equal_its_rules_both_ways(taught: Service, environment: install.Environment) -> None:
    used = {(call.group, call.resource, call.verb) for call in audit.calls(machine.audit_log(), audit.OPERATOR) if call.code != 403}
    # A server-side apply that makes the object is logged as patch with 201, and needs the right to create.
    used |= {(call.group, call.resource, "create") for call in audit.calls(machine.audit_log(), audit.OPERATOR) if call.code == 201}
    refused = [call for call in audit.calls(machine.audit_log(), audit.OPERATOR) if call.code == 403]
    assert refused == [], "the operator asked for something that its rules do not allow"
    granted = rules(environment.kube)
    assert sorted(used - granted) == [], "used without a rule"
    assert sorted(granted - used) == [], "rules that the whole run never needed"


def rules(kube: Kube) -> set[tuple[str, str, str]]:
    """Return (group, resource, verb) of every rule that is bound to the operator's account."""
    found = set()
    roles = [
        item for kind in ("clusterroles", "roles") for item in kube.within(install.SYSTEM_NAMESPACE).list(kind, "app.kubernetes.io/name=graftwork")
    ]
    for role in roles:
        for rule in role["rules"]:
            found |= {(group, resource, verb) for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]}
    return found
