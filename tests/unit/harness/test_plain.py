"""The plain Deployment has everything of a serving pod, as the operator renders it, but what Graftwork adds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from tests.harness import plain
from tests.harness.venv import ROOT

CASE = ROOT / "tests/golden/cases/serving-cpu-s3.out.yaml"
SOURCE = "store://e2e/bench-0/3f2a9c41d0e7"


@pytest.fixture
def pod() -> dict[str, Any]:
    """A serving pod as the API server shows it, with what the kubelet's admission adds."""
    (deployment,) = [each for each in yaml.safe_load_all(CASE.read_text()) if each["kind"] == "Deployment"]
    spec: dict[str, Any] = copy.deepcopy(deployment["spec"]["template"]["spec"])
    spec["nodeName"] = "node-b"
    spec["tolerations"] = [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]
    return {"metadata": {"name": "tiny-a"}, "spec": spec}


def rendered(pod: dict[str, Any], adapters: dict[str, str]) -> dict[str, Any]:
    deployment, _ = plain.objects(pod, adapters)
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def test_the_engine_has_the_same_image_and_flags_but_graftworks_own(pod: dict[str, Any]) -> None:
    (guarded,) = pod["spec"]["containers"]
    (engine,) = rendered(pod, {"bench-0": SOURCE})["containers"]
    assert engine["image"] == guarded["image"]
    assert engine["command"][:3] == ["vllm", "serve", "/models/base"]
    assert engine["command"][-2:] == ["--lora-modules", "bench-0=/adapters/bench-0"]
    gone = [each for each in guarded["args"] if each not in engine["command"]]
    assert sorted(each.partition("=")[0] for each in gone) == ["--middleware", "--shutdown-timeout"]
    assert "--enable-lora" in engine["command"]


def test_nothing_of_the_guard_or_the_agent_is_left(pod: dict[str, Any]) -> None:
    spec = rendered(pod, {"bench-0": SOURCE})
    (engine,) = spec["containers"]
    assert not [each for each in engine["env"] if each["name"].startswith("GRAFTWORK_") or each["name"] == "PYTHONPATH"]
    assert {"VLLM_CPU_KVCACHE_SPACE", "OMP_WAIT_POLICY", "HOME"} <= {each["name"] for each in engine["env"]}
    assert "lifecycle" not in engine
    assert [each["name"] for each in spec["initContainers"]] == ["download", "adapter-bench-0"]
    assert "graftwork_guard" not in yaml.safe_dump(spec)


def test_every_mount_has_its_volume_and_every_volume_its_mount(pod: dict[str, Any]) -> None:
    spec = rendered(pod, {"bench-0": SOURCE})
    mounted = {mount["name"] for each in (*spec["containers"], *spec["initContainers"]) for mount in each["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]} == {"model", "home", "shm", "lora"}


def test_it_runs_on_the_same_node_and_under_the_same_restrictions(pod: dict[str, Any]) -> None:
    spec = rendered(pod, {"bench-0": SOURCE})
    assert spec["nodeSelector"] == {"kubernetes.io/hostname": "node-b"}
    assert spec["securityContext"] == pod["spec"]["securityContext"]
    assert all(each["securityContext"]["capabilities"] == {"drop": ["ALL"]} for each in (*spec["containers"], *spec["initContainers"]))


def test_one_more_adapter_changes_the_command_line_and_nothing_of_the_first(pod: dict[str, Any]) -> None:
    one, two = rendered(pod, {"bench-0": SOURCE}), rendered(pod, {"bench-0": SOURCE, "bench-1": "store://e2e/bench-1/aa00bb11cc22"})
    assert two["containers"][0]["command"] == [*one["containers"][0]["command"], "bench-1=/adapters/bench-1"]
    assert two["initContainers"][:2] == one["initContainers"]


def test_an_adapter_comes_from_where_the_agent_gets_it(pod: dict[str, Any]) -> None:
    (agent,) = [each for each in pod["spec"]["initContainers"] if each["name"] == "agent"]
    download = rendered(pod, {"bench-0": SOURCE})["initContainers"][1]
    url = next(each["value"] for each in agent["env"] if each["name"] == "GRAFTWORK_STORE_URL")
    assert f"--source {url}/adapters/e2e/bench-0/3f2a9c41d0e7/adapter_config.json --to /adapters/bench-0 && " in download["command"][2]
    assert f"--source {url}/adapters/e2e/bench-0/3f2a9c41d0e7/adapter_model.safetensors --to /adapters/bench-0" in download["command"][2]
    assert [each["name"] for each in download["env"]] == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"]


def test_a_store_that_is_a_claim_is_refused() -> None:
    with pytest.raises(ValueError, match="file:///store"):
        plain.store_address("file:///store", SOURCE)
    assert plain.store_address("s3://graftwork/team/", SOURCE) == "s3://graftwork/team/adapters/e2e/bench-0/3f2a9c41d0e7"


def test_the_service_finds_the_pod_by_its_labels_and_named_port(pod: dict[str, Any]) -> None:
    deployment, service = plain.objects(pod, {})
    template = deployment["spec"]["template"]
    assert service["spec"]["selector"] == template["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"]
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] in [each["name"] for each in template["spec"]["containers"][0]["ports"]]
    assert "--lora-modules" not in template["spec"]["containers"][0]["command"]
