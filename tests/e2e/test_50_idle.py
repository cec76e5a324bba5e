"""Idle is idle: an operator with nothing to do writes nothing."""

from __future__ import annotations

import threading

from tests.e2e.service import Service
from tests.harness import audit, machine
from tests.harness.e2e import RESYNC_SECONDS
from tests.harness.kube import Kube

IDLE_SECONDS = 2.5 * RESYNC_SECONDS  # `make bench-loop` watches for 5 minutes


def test_an_idle_operator_writes_nothing_but_its_lease(
    taught: Service,
    kube: Kube,
    plain_begun: None,  # starts beside this, for test_55: none of the operator's business
) -> None:
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
