from __future__ import annotations

from typing import Any

import pytest
from graftwork.sizing import startup

GIB = 2**30


@pytest.mark.parametrize(
    ("weights", "cpu", "eager", "seconds"),
    [
        (0, False, False, 1200),
        (0, False, True, 900),
        (100 * GIB, False, False, 600 + 600 + 1024),
        (100 * GIB, False, True, 600 + 1024),
        (0, True, False, 1800),
        (100 * GIB, True, False, 1800),
        (200 * GIB, True, False, 600 + 2048),
        (10_000 * GIB, False, False, 6 * 3600),
    ],
)
def test_how_long_an_engine_may_start(weights: int, cpu: bool, eager: bool, seconds: int) -> None:
    assert startup.engine_seconds(weights, cpu=cpu, eager=eager) == seconds


@pytest.mark.parametrize(
    ("weights", "deadline", "seconds"),
    [(0, None, 3600), (100 * GIB, None, 3600), (700 * GIB, None, 600 + 600 + 7168 + 60), (0, 7200, 7260), (700 * GIB, 90, 8428), (0, 3541, 3601)],
)
def test_the_probe_ends_an_engine_after_every_other_clock(weights: int, deadline: float | None, seconds: int) -> None:
    found = startup.probe_seconds(weights, cpu=False, eager=False, deadline_seconds=deadline)
    assert found == seconds
    assert found - startup.PROBE_MARGIN_SECONDS >= (deadline or startup.engine_seconds(weights, cpu=False, eager=False))


def _template(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": list(containers)}}


@pytest.mark.parametrize(
    ("template", "seconds"),
    [
        (_template({"name": "other"}, {"name": "vllm", "startupProbe": {"periodSeconds": 1, "failureThreshold": 3600}}), 7200),
        (_template({"name": "vllm", "startupProbe": {"failureThreshold": 60}}), 1200),
        (_template({"name": "vllm"}), None),
        (_template({"name": "other", "startupProbe": {"periodSeconds": 1, "failureThreshold": 3600}}), None),
        ({}, None),
    ],
)
def test_the_deployments_deadline_is_of_the_template_that_is_applied(template: dict[str, Any], seconds: int | None) -> None:
    assert startup.deployment_seconds(template) == seconds
