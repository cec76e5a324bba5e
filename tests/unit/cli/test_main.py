"""The program as kubectl runs it, with a kubectl that plays back recordings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from graftwork.cli.main import main

from tests.unit.cli.recorded import PLURALS, read

SCRIPT = """#!{python}
import json, os, sys
arguments = [a for a in sys.argv[1:] if not a.startswith(("--namespace", "--context", "--kubeconfig"))]
with open({calls!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
objects = json.load(open({objects!r}))
if arguments[0] == "logs":
    print("the log of " + arguments[1])
    sys.exit(3 if "--container=agent" in arguments else 0)
found = [item for item in objects if item["resource"] == arguments[1]]
if arguments[2].startswith("--"):
    print(json.dumps({{"items": found}}))
else:
    named = [item for item in found if item["metadata"]["name"] == arguments[2]]
    if not named:
        sys.exit('Error from server (NotFound): "%s" not found' % arguments[2])
    print(json.dumps(named[0]))
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The calls of a program that stands in for kubectl, one JSON list per line."""
    objects = [{**item, "resource": PLURALS[item["kind"]]} for item in read("rolling")]
    (tmp_path / "objects.json").write_text(json.dumps(objects))
    script, file = tmp_path / "kubectl", tmp_path / "calls"
    script.write_text(SCRIPT.format(python=sys.executable, calls=str(file), objects=str(tmp_path / "objects.json")))
    script.chmod(0o755)
    file.touch()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("KUBECTL", raising=False)
    return file


def called(calls: Path) -> list[list[str]]:
    return [json.loads(line) for line in calls.read_text().splitlines()]


def test_status_of_one_and_of_all(calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "support"]) == 0
    one = capsys.readouterr().out
    assert one.startswith("LLMDeployment ml/support: 2/2 ready")
    assert main(["status"]) == 0
    assert capsys.readouterr().out.count("LLMDeployment ml/support") == 1


def test_the_users_flags_reach_every_call(calls: Path) -> None:
    main(["status", "support", "-n", "ml", "--context", "prod", "--kubeconfig", "/k"])
    assert called(calls)
    assert all(call[-3:] == ["--namespace=ml", "--context=prod", "--kubeconfig=/k"] for call in called(calls))


def test_logs_are_kubectls_own_and_what_was_chosen_is_said_beside_them(calls: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "support", "--tail", "5"]) == 0
    out, err = capfd.readouterr()
    assert out == "the log of support-new\n"
    assert err.startswith("# pod support-new, container vllm, the run before its last restart (EngineCrashed: ")
    assert called(calls)[-1] == ["logs", "support-new", "--container=vllm", "--previous", "--tail=5"]


def test_kubectls_exit_code_is_ours(calls: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "support", "-c", "agent"]) == 3


def test_kubectls_errors_are_told_in_its_words(calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "other"]) == 1
    assert capsys.readouterr().err == 'Error from server (NotFound): "other" not found\n'


def test_without_kubectl_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KUBECTL", "/nowhere/kubectl")
    assert main(["status"]) == 1
    assert "install kubectl, or set KUBECTL to its path" in capsys.readouterr().err


def test_the_plugin_starts_without_what_only_the_operator_needs() -> None:
    loaded = "import sys, graftwork.cli.main; print(*{'kopf', 'kubernetes', 'aiohttp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "operator"})
    assert done.stdout.strip() == ""


NEW = """
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: other}}
  - apiVersion: graftwork.dev/v1alpha1
    kind: LLMDeployment
    metadata: {name: support}
    spec: {model: {source: s3://models/qwen3-8b}, replicas: 3}
"""


def test_plan_compares_a_file_with_what_is_live(calls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new.yaml").write_text(NEW)
    assert main(["plan", "-f", str(tmp_path / "new.yaml"), "-n", "ml"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("LLMDeployment support: no pod restarts\n")
    assert "spec.replicas  2 -> 3\n" in out
    assert called(calls) == [["get", "llmdeployments.graftwork.dev", "support", "--output=json", "--ignore-not-found", "--namespace=ml"]]


@pytest.mark.parametrize("current", [True, False])
def test_plan_works_without_a_cluster(calls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], current: bool) -> None:
    (tmp_path / "new.yaml").write_text(NEW)
    (tmp_path / "old.yaml").write_text(NEW.replace("replicas: 3", "replicas: 1"))
    offline = ["--current", str(tmp_path / "old.yaml")] if current else ["--offline"]
    assert main(["plan", "-f", str(tmp_path / "new.yaml"), *offline]) == 0
    assert ("spec.replicas  1 -> 3" if current else "new, 3 pods") in capsys.readouterr().out
    assert called(calls) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: ConfigMap", "has no LLMDeployment"),
        ("a: [", "cannot be read"),
        (NEW.replace("replicas: 3", "replicas: -1"), "spec.replicas: Input should be greater than or equal to 0"),
    ],
)
def test_plan_says_what_is_wrong_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str) -> None:
    (tmp_path / "new.yaml").write_text(text)
    assert main(["plan", "--offline", "-f", str(tmp_path / "new.yaml")]) == 1
    assert says in capsys.readouterr().err


def test_plan_ends_with_an_error_for_what_the_operator_would_refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new.yaml").write_text(NEW.replace("replicas: 3", "engine: {args: {port: 1}}"))
    assert main(["plan", "--offline", "-f", str(tmp_path / "new.yaml")]) == 1
    assert "OwnedFlag" in capsys.readouterr().out
