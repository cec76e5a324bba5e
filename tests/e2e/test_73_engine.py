"""The tables that the API's enums come from, and the command lines that the operator writes, against the engine that really runs."""

from __future__ import annotations

import difflib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from graftwork import engines
from graftwork.api import LLMDeployment
from graftwork.plan import engine, engine_combinations

from tests.e2e import engine_models, engine_tables
from tests.e2e.service import Service, deployment
from tests.golden import render
from tests.harness.engine_tables import written
from tests.harness.kube import Kube, condition

NGRAM = {"method": "ngram", "tokens": 7}
REMEDY = "run `make engine-tables`, and review the difference"


def ask(kube: Kube, service: Service, *arguments: str) -> Any:
    """Run the script in the engine's container and return what it prints."""
    script = Path(engine_tables.__file__).read_text(encoding="utf-8")
    pod = service.pods()[0]["metadata"]["name"]
    said = kube.run("exec", pod, "-c", "vllm", "--", "python3", "-c", script, *arguments, timeout=240)
    return json.loads(said.splitlines()[-1])


def test_the_committed_tables_are_what_the_running_engine_takes(kube: Kube, taught: Service) -> None:
    committed = files(engines).joinpath(f"vllm-{engines.VERSION}.json").read_text(encoding="utf-8")
    difference = list(difflib.unified_diff(committed.splitlines(), written(ask(kube, taught)).splitlines(), "committed", "running", lineterm="", n=0))
    assert difference == [], REMEDY


def test_the_engines_own_parser_takes_every_command_line_that_the_operator_writes(kube: Kube, taught: Service) -> None:
    lines = {}
    for name in render.names():
        for manifest in yaml.safe_load_all((render.CASES / f"{name}.out.yaml").read_text(encoding="utf-8")):
            if manifest["kind"] == "Deployment":
                lines[name] = manifest["spec"]["template"]["spec"]["containers"][0]["args"][2:]
    assert "serving-engine-fields" in lines
    said = ask(kube, taught, json.dumps([*lines.values(), ["/models/base", "--no-such-flag"]]))
    assert dict(zip(lines, said, strict=False)) == dict.fromkeys(lines, "")
    assert "no-such-flag" in said[-1], "a parser that takes everything would prove nothing"


COMBINATIONS: list[dict[str, Any]] = [
    {"dtype": "float32", "quantization": "fp8"},
    {"dtype": "bfloat16", "quantization": "fp8"},
    {"dtype": "float32", "quantization": "fp8_per_block"},
    {"maxNumSeqs": 256, "speculative": NGRAM, "args": {"max-num-batched-tokens": 2047}},
    {"maxNumSeqs": 256, "speculative": NGRAM, "args": {"max-num-batched-tokens": 2048}},
    {"speculative": NGRAM, "args": {"async-scheduling": True}},
    {"speculative": NGRAM, "args": {"async-scheduling": False}},
    {"args": {"enable-log-outputs": True}},
    {"args": {"enable-auto-tool-choice": True}},
    {"args": {"enable-auto-tool-choice": True, "tool-call-parser": "hermes"}},
    {"kvCacheDtype": "fp8", "prefixCaching": False, "parallelism": {"tensor": 2}},
]


def test_the_combinations_that_are_refused_are_those_that_the_engine_refuses(kube: Kube, taught: Service) -> None:
    made = [LLMDeployment.from_object(deployment("x", engine={"maxModelLen": 512, **settings})) for settings in COMBINATIONS]
    said = ask(kube, taught, json.dumps([engine.arguments(each)[2:] for each in made]), "configure")
    found = [(settings, bool(error)) for settings, error in zip(COMBINATIONS, said, strict=True)]
    assert found == [(settings, bool(engine_combinations.problems(each))) for settings, each in zip(COMBINATIONS, made, strict=True)], said


def test_models_are_taken_for_the_task_and_the_quantization_that_the_operator_detects(kube: Kube, taught: Service) -> None:
    """One question for all of them, and no engine is started: vLLM reads config.json and what lies beside it."""
    cases = (*engine_models.TASKS, *engine_models.METHODS)
    said = ask(kube, taught, json.dumps([{"files": case.files, "arguments": case.arguments} for case in cases]), "models")
    found = [(number, bool(each["error"]), each.get("runner", "")) for number, each in enumerate(said)]
    assert found == [(number, bool(case.refused), "" if case.refused else case.runner) for number, case in enumerate(cases)], said
    assert {case.runner for case in engine_models.TASKS} == {"generate", "pooling"}
    assert {bool(case.refused) for case in engine_models.METHODS} == {True, False}


def test_the_engine_runs_as_the_user_of_the_upstream_image_with_fields_set(kube: Kube, taught: Service) -> None:
    """The namespace enforces the restricted standard; HOME and the caches are volumes, so that the user's own files in the image do not matter."""
    fields = {"prefixCaching": False, "toolCalling": {"parser": "hermes"}, "speculative": {"method": "ngram", "tokens": 3}}
    made = deployment(
        "upstream", pod={"securityContext": {"runAsUser": 2000, "runAsGroup": 0}}, adapters={"selector": {"matchLabels": {"none": "x"}}}
    )
    made["spec"]["engine"] = {**made["spec"]["engine"], **fields}
    kube.apply(made)
    done = kube.wait_condition("llmdeployment", "upstream", "Ready", timeout=180)
    assert condition(done, "PodSecurity") == {}
    (pod,) = kube.list("pods", "graftwork.dev/deployment=upstream")
    who = kube.run("exec", pod["metadata"]["name"], "-c", "vllm", "--", "id", "-u").strip()
    assert who == "2000"
    kube.delete("llmdeployment", "upstream")
    kube.wait_gone("pods", "graftwork.dev/deployment=upstream", 60)


def test_a_combination_that_the_engine_refuses_is_refused_before_a_pod_is_touched(kube: Kube, taught: Service) -> None:
    pods = taught.identities()
    kube.patch("llmdeployment", "tiny", {"spec": {"engine": {"args": {"enable-log-outputs": True}}}})
    found = condition(kube.wait_condition("llmdeployment", "tiny", "Stalled", timeout=30), "Stalled")
    assert found["reason"] == "UnsupportedCombination"
    assert "enable-log-requests" in found["message"]
    kube.patch("llmdeployment", "tiny", {"spec": {"engine": {"args": {"enable-log-outputs": None}}}})  # test_72 left another flag there
    kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=30)
    assert taught.identities() == pods
