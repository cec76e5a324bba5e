"""How long an engine may take to start.

Three clocks, each longer than the one before, so that the one that knows the cause ends first:

1. the rollout's (plan/rollout.py): `engine_seconds`, or what spec.rollout.progressDeadline says; it quotes what the engine said;
2. the startup probe of the container `vllm`: `probe_seconds`; what the kubelet kills tells no cause;
3. the Deployment's progressDeadlineSeconds: `deployment_seconds`; nothing acts on it, but tools read it as "this rollout is stuck".
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from graftwork import names

WEIGHTS_BYTES_PER_SECOND = 100 * 2**20
"""Floor of reading weights: a network disk or file share that is slower is too slow to serve from."""
START_SECONDS = 600.0
"""Everything but weights and compilation: imports, processes, profiling, CUDA graphs."""
COMPILE_SECONDS = 600.0
"""torch.compile with an empty cache; none with enforceEager."""
LEAST_SECONDS, CPU_SECONDS, MOST_SECONDS = 900.0, 1800.0, 6 * 3600.0
PROBE_MARGIN_SECONDS = 60.0
"""So much earlier than the startup probe the rollout's clock ends."""
LEAST_PROBE_SECONDS = 3600
"""The probe is frozen with the template, and progressDeadline is not: an hour leaves room to raise it without another template."""


def engine_seconds(weights_bytes: int, *, cpu: bool, eager: bool) -> float:
    """Return what `progressDeadline: auto` means: by the size of the weights, at least 15 minutes (30 on CPUs), at most six hours."""
    compiling = 0.0 if eager or cpu else COMPILE_SECONDS
    wanted = START_SECONDS + compiling + weights_bytes / WEIGHTS_BYTES_PER_SECOND
    return min(MOST_SECONDS, max(CPU_SECONDS if cpu else LEAST_SECONDS, wanted))


def probe_seconds(weights_bytes: int | None, *, cpu: bool, eager: bool, deadline_seconds: float | None) -> int:
    """Return after how long the kubelet ends an engine that does not answer; `deadline_seconds` None is `progressDeadline: auto`.

    `weights_bytes` None: not known when the template is made, so that the longest start must be possible; the rollout's clock knows them later.
    """
    if weights_bytes is None:
        return ceil(max(MOST_SECONDS, deadline_seconds or 0.0) + PROBE_MARGIN_SECONDS)
    clock = max(engine_seconds(weights_bytes, cpu=cpu, eager=eager), deadline_seconds or 0.0)
    return max(LEAST_PROBE_SECONDS, ceil(clock + PROBE_MARGIN_SECONDS))


def deployment_seconds(template: Mapping[str, Any]) -> int | None:
    """Return the Deployment's progressDeadlineSeconds: twice what its engine may take, once for the start and once for node, image and download.

    It is read from the template that is applied, which may be older than the spec. None: it has no engine with a startup probe.
    """
    for container in (template.get("spec") or {}).get("containers") or []:
        probe = container.get("startupProbe") or {}
        if container.get("name") == names.CONTAINER_ENGINE and probe.get("failureThreshold"):
            return 2 * int(probe["failureThreshold"]) * int(probe.get("periodSeconds") or 10)
    return None
