"""Argo CD's health checks of the three kinds, run by a Lua interpreter as Argo CD runs them: `obj` in, `hs` out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lupa  # type: ignore[import-untyped]  # it has no types
import pytest

FOLDER = Path(__file__).parents[3] / "charts" / "graftwork" / "files" / "argocd-health"
KINDS = ("LLMDeployment", "FineTuneJob", "LoRAAdapter")


def health(kind: str, obj: dict[str, Any]) -> tuple[str, str]:
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = lua.table_from(obj, recursive=True)
    result = lua.execute((FOLDER / f"{kind}.lua").read_text())
    return result.status, result.message


def seen(kind: str, *conditions: tuple[str, str, str, str], generation: int = 2, **status: Any) -> tuple[str, str]:
    listed = [dict(zip(("type", "status", "reason", "message"), condition, strict=True)) for condition in conditions]
    spec = {"replicas": status.pop("replicas", 1)}
    return health(kind, {"metadata": {"generation": generation}, "spec": spec, "status": {"observedGeneration": 2, "conditions": listed, **status}})


def test_there_is_one_check_per_kind() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_new_object_is_progressing(kind: str) -> None:
    assert health(kind, {"metadata": {"generation": 1}, "spec": {}}) == ("Progressing", "Waiting for the operator")


@pytest.mark.parametrize("kind", KINDS)
def test_status_of_an_older_spec_is_not_believed(kind: str) -> None:
    status, message = seen(kind, ("Ready", "True", "Reconciled", ""), generation=3, phase="Succeeded")
    assert (status, message) == ("Progressing", "Waiting for the operator to see the new spec")


@pytest.mark.parametrize("kind", KINDS)
def test_stalled_is_degraded_with_the_reason(kind: str) -> None:
    stalled = ("Stalled", "True", "SourceInvalid", "model.source ...")
    assert seen(kind, ("Ready", "False", "SourceInvalid", "x"), stalled) == ("Degraded", "SourceInvalid: model.source ...")


@pytest.mark.parametrize("kind", ["LLMDeployment", "LoRAAdapter"])
def test_ready_is_healthy(kind: str) -> None:
    assert seen(kind, ("Ready", "True", "Reconciled", "2/2 ready"), ("Stalled", "False", "Reconciled", "")) == ("Healthy", "Reconciled: 2/2 ready")


@pytest.mark.parametrize("kind", ["LLMDeployment", "LoRAAdapter"])
@pytest.mark.parametrize("value", ["False", "Unknown"])
def test_not_ready_is_progressing(kind: str, value: str) -> None:
    assert seen(kind, ("Ready", value, "Progressing", "1/2"))[0] == "Progressing"


def test_stopped_deployment_is_suspended() -> None:
    assert seen("LLMDeployment", ("Ready", "True", "Stopped", ""), replicas=0)[0] == "Suspended"


@pytest.mark.parametrize("reason", ["NoDeployment", "Superseded"])
def test_adapter_that_nothing_asks_for_is_suspended(reason: str) -> None:
    assert seen("LoRAAdapter", ("Ready", "False", reason, ""))[0] == "Suspended"


@pytest.mark.parametrize(
    ("phase", "status"),
    [
        ("Pending", "Progressing"),
        ("Training", "Progressing"),
        ("Succeeded", "Healthy"),
        ("Rejected", "Degraded"),
        ("Failed", "Degraded"),
        ("Suspended", "Suspended"),
    ],
)
def test_health_of_a_job_follows_its_phase(phase: str, status: str) -> None:
    assert seen("FineTuneJob", ("Ready", "False", "Training", "48/120"), phase=phase) == (status, "Training: 48/120")
