"""The CRDs on a real API server: what is stored, defaulted, shown, scaled, and what the status subresource keeps."""

from __future__ import annotations

import httpx
import pytest
from graftwork.api import FineTuneJob, LLMDeployment, LoRAAdapter
from graftwork.api.base import Resource
from graftwork.api.crds import KINDS
from graftwork.api.status import Condition, LLMDeploymentStatus, Progress, ServedAlias

from tests.control_plane.api_server import ApiServer
from tests.control_plane.objects import PLURALS, Objects, spec_of

TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
MODELS: dict[str, type[Resource]] = {"LLMDeployment": LLMDeployment, "FineTuneJob": FineTuneJob, "LoRAAdapter": LoRAAdapter}


@pytest.mark.parametrize("kind", PLURALS)
def test_schema_is_structural_and_its_names_are_accepted(admin: httpx.Client, kind: str) -> None:
    crd = admin.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{PLURALS[kind]}.graftwork.dev").json()
    conditions = {item["type"]: item["status"] for item in crd["status"]["conditions"]}
    assert conditions["Established"] == conditions["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in conditions


@pytest.mark.parametrize("kind", PLURALS)
def test_stored_defaults_are_the_models_defaults(objects: Objects, kind: str) -> None:
    stored = objects.made(kind)
    bare = {"metadata": {"name": "one"}, "spec": spec_of(kind)}
    assert MODELS[kind].from_object(stored).spec == MODELS[kind].from_object(bare).spec  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", PLURALS)
def test_object_without_spec_is_refused(objects: Objects, kind: str) -> None:
    answer = objects.create(kind, None)
    assert answer.status_code == 422
    assert "spec: Required value" in answer.json()["message"]


def test_stored_object_is_short(objects: Objects) -> None:
    assert objects.made("LLMDeployment")["spec"] == {
        "model": {"source": "pvc://models/tiny"},
        "engine": {"maxModelLen": "auto", "gpuMemoryUtilization": 0.9, "dtype": "auto", "maxNumSeqs": "auto", "enforceEager": False},
        "replicas": 1,
        "adapters": {"maxLoaded": 8, "maxRank": "auto"},
        "service": {"port": 8000},
        "rollout": {
            "drainSeconds": 8,
            "answerSeconds": 300,
            "surge": "auto",
            "progressDeadline": "auto",
            "autoRollback": True,
            "upgradePolicy": "WithNextChange",
        },
        "cache": {"mode": "auto", "size": "auto", "keep": 2},
    }


def test_scale_reads_replicas_of_a_spec_that_never_named_them(objects: Objects) -> None:
    objects.made("LLMDeployment")
    assert objects.client.get(objects.url("LLMDeployment", "one", "scale")).json()["spec"] == {"replicas": 1}


def test_scale_changes_replicas_and_shows_the_selector(objects: Objects) -> None:
    objects.made("LLMDeployment")
    objects.patch("LLMDeployment", {"status": {"replicas": 2, "selector": "graftwork.dev/deployment=one"}}, part="status").raise_for_status()
    objects.patch("LLMDeployment", {"spec": {"replicas": 3}}, part="scale").raise_for_status()
    scale = objects.client.get(objects.url("LLMDeployment", "one", "scale")).json()
    assert scale["spec"]["replicas"] == 3
    assert scale["status"] == {"replicas": 2, "selector": "graftwork.dev/deployment=one"}


def test_status_survives_only_through_its_subresource(objects: Objects) -> None:
    objects.made("LLMDeployment")
    objects.patch("LLMDeployment", {"status": {"summary": "made up"}}).raise_for_status()
    assert "status" not in objects.client.get(objects.url("LLMDeployment", "one")).json()


def test_written_status_comes_back_unchanged(objects: Objects) -> None:
    """Otherwise the operator would see a difference, and write, at each pass."""
    objects.made("LLMDeployment")
    condition = Condition(
        type="Ready", status="True", reason="Reconciled", message="", observed_generation=1, last_transition_time="2026-11-21T13:00:00Z"
    )
    status = LLMDeploymentStatus(
        observed_generation=1,
        conditions=(condition,),
        summary="1/1 ready",
        replicas=1,
        adapters=(
            ServedAlias(
                alias="medical",
                stable="medical-8",
                candidate="medical-9",
                candidate_weight=0,
                step=0,
                steps=2,
                step_started_at="2026-11-21T13:00:00.000000Z",
                failed="medical-9",
                failure="2 of 50 requests failed",
                engine_name="medical--3f2a9c41d0e7",
                loaded=1,
                of=1,
            ),
        ),
    ).to_object()
    written = objects.patch("LLMDeployment", {"status": status}, part="status")
    assert written.status_code == 200, written.text
    assert written.json()["status"] == status


def columns(objects: Objects, kind: str) -> dict[str, object]:
    table = objects.client.get(objects.url(kind), headers=TABLE).json()
    return dict(zip((column["name"] for column in table["columnDefinitions"]), table["rows"][0]["cells"], strict=True))


def test_columns_of_an_llmdeployment(objects: Objects) -> None:
    objects.made("LLMDeployment")
    ready = {"type": "Ready", "status": "False", "reason": "PodsStarting", "message": "", "lastTransitionTime": "2026-11-21T13:00:00Z"}
    objects.patch(
        "LLMDeployment", {"status": {"conditions": [ready], "replicasText": "0/1", "adaptersText": "1/2", "summary": "starting"}}, part="status"
    ).raise_for_status()
    row = columns(objects, "LLMDeployment")
    assert row.pop("Age")
    assert row == {
        "Name": "one",
        "Ready": "False",
        "Replicas": "0/1",
        "Model": "pvc://models/tiny",
        "Adapters": "1/2",
        "Reason": "PodsStarting",
        "Summary": "starting",
    }


def test_columns_of_a_finetunejob(objects: Objects) -> None:
    objects.made("FineTuneJob")
    progress = Progress(step=48, steps=120, loss=0.83, eta_seconds=84).to_object()
    status = {"phase": "Training", "progress": progress, "progressText": "48/120", "adapter": "medical-8"}
    objects.patch("FineTuneJob", {"status": status}, part="status").raise_for_status()
    row = columns(objects, "FineTuneJob")
    assert (row["Phase"], row["Progress"], row["Loss"], row["ETA"], row["Adapter"]) == ("Training", "48/120", 0.83, 84, "medical-8")


def test_columns_of_a_loraadapter(objects: Objects) -> None:
    objects.made("LoRAAdapter")
    seen = {"loadedText": "2/2", "rank": 16, "baseModel": {"source": "s3://models/tiny"}}
    objects.patch("LoRAAdapter", {"status": seen}, part="status").raise_for_status()
    row = columns(objects, "LoRAAdapter")
    assert (row["Alias"], row["Version"], row["Base"], row["Rank"], row["Loaded"]) == ("medical", 8, "s3://models/tiny", 16, "2/2")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_short_name_and_category_find_it(api_server: ApiServer, objects: Objects, kind: object) -> None:
    short = kind.short  # type: ignore[attr-defined]
    name = kind.name  # type: ignore[attr-defined]
    objects.made(name)
    for word in (short, "graftwork"):
        done = api_server.run("kubectl", "get", word, "-n", objects.namespace, "-o", "name")
        assert f"{name.lower()}.graftwork.dev/one" in done.stdout, done.stderr


def test_explain_shows_the_description_of_a_field(api_server: ApiServer) -> None:
    done = api_server.run("kubectl", "explain", "llmdeployment.spec.rollout.drainSeconds")
    assert "Connection: close" in done.stdout, done.stderr
