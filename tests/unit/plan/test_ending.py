"""How long an ending pod has: for its clients to go, for what runs to be answered, and for vLLM's own end."""

from __future__ import annotations

import pytest
from graftwork.api import LLMDeployment
from graftwork.plan import engine, serving, sources
from graftwork.plan.sources import Source

from tests.unit.runtime.fakes import CONFIG


@pytest.mark.parametrize(("drain", "answer"), [(8, 300), (0, 1), (600, 86_400)])
def test_the_grace_period_outlives_the_wait_of_pre_stop_and_vllms_timeout_which_is_the_longest_answer(drain: int, answer: int) -> None:
    """vLLM that is over its timeout hangs until its clients leave, and its own end takes 5 s more; a pod killed before loses answers."""
    rollout = {"drainSeconds": drain, "answerSeconds": answer}
    spec = {"model": {"source": "s3://models/tiny"}, "rollout": rollout}
    deployment = LLMDeployment.from_object({"metadata": {"name": "tiny", "namespace": "ml"}, "spec": spec})
    source = sources.parse("spec.model.source", "s3://models/tiny", sources.MODEL_KINDS)
    assert isinstance(source, Source)
    template = serving.pod_template(deployment, serving.Inputs(source), CONFIG, "t1")
    timeout = next(int(item.partition("=")[2]) for item in engine.arguments(deployment) if item.startswith("--shutdown-timeout="))
    waited = next(int(item["value"]) for item in engine.environment(deployment) if item["name"] == "GRAFTWORK_DRAIN_SECONDS")
    assert (waited, timeout) == (drain, answer)
    assert template["spec"]["terminationGracePeriodSeconds"] >= waited + timeout + 10
