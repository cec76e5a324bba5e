"""What the template relies on in vllm/vllm-openai, and does itself because the image does not (docs/design/engine-image.md)."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest
from graftwork.api import LLMDeployment
from graftwork.config import Config
from graftwork.plan import engine, serving, sources
from graftwork.plan.sources import Source

CONFIG = Config.model_validate({"images": {"engine": "vllm/vllm-openai:v0.32.0", "agent": "a:1", "trainer": "t:1"}, "lease": {"namespace": "g"}})
PODS: list[tuple[dict[str, Any], tuple[int, int, int]]] = [
    ({}, (10001, 10001, 10001)),
    ({"securityContext": {"runAsUser": 2000, "runAsGroup": 0}}, (2000, 0, 10001)),  # the user that the image brings along
]
CACHES = {"VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME"}


def template(**spec: Any) -> dict[str, Any]:
    made = LLMDeployment.from_object({"metadata": {"name": "m", "namespace": "ml"}, "spec": {"model": {"source": "s3://models/m"}, **spec}})
    source = sources.parse("source", "s3://models/m", sources.MODEL_KINDS)
    assert isinstance(source, Source)
    found: dict[str, Any] = serving.pod_template(made, serving.Inputs(source), CONFIG, "h")["spec"]
    return found


def vllm(spec: dict[str, Any]) -> dict[str, Any]:
    return next(item for item in spec["containers"] if item["name"] == "vllm")


@pytest.mark.parametrize(("pod", "ids"), PODS, ids=["ours", "the image's"])
def test_every_process_has_a_user_of_its_own_and_a_group_for_the_volumes(pod: dict[str, Any], ids: tuple[int, int, int]) -> None:
    context = template(pod=pod)["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == ids
    assert context["runAsNonRoot"] is True  # the image's own user is root


@pytest.mark.parametrize(("pod", "ids"), PODS, ids=["ours", "the image's"])
def test_what_the_image_says_of_start_and_user_is_replaced(pod: dict[str, Any], ids: tuple[int, int, int]) -> None:
    container = vllm(template(pod=pod))
    assert container["command"] == ["python3", "/graftwork/bin/entrypoint.py"]  # instead of ENTRYPOINT ["vllm", "serve"]
    assert container["args"][:2] == ["vllm", "serve"]  # found on the image's PATH, as python3 is
    assert "workingDir" not in container  # nothing is read or written relative to it
    given = {item["name"]: item.get("value", "") for item in container["env"]}
    assert given["HOME"] == engine.HOME  # the image's is /root for root, /home/vllm for 2000
    assert given["USER"]  # PyTorch asks for a name, and a user without a line in /etc/passwd has none
    assert "PATH" not in given


@pytest.mark.parametrize("pod", [pod for pod, _ in PODS], ids=["ours", "the image's"])
def test_whatever_is_written_goes_to_a_volume(pod: dict[str, Any]) -> None:
    spec = template(pod=pod)
    mounts = {item["mountPath"]: item for item in vllm(spec)["volumeMounts"]}
    volumes = {item["name"]: item for item in spec["volumes"]}
    for path in (engine.HOME, "/dev/shm"):
        assert not mounts[path].get("readOnly")
        assert "emptyDir" in volumes[mounts[path]["name"]]


def test_compiled_kernels_outlive_a_restart_of_the_container() -> None:
    """VLLM_CACHE_ROOT is ~/.cache/vllm unless said, Inductor's and Triton's folders are below it: HOME alone decides, and is a volume of the pod."""
    container = vllm(template())
    assert not CACHES & {item["name"] for item in container["env"]}
    assert "HOME" in engine.OWNED_ENV
    assert any(PurePosixPath(engine.HOME) == PurePosixPath(item["mountPath"]) for item in container["volumeMounts"])


def test_the_cpu_image_keeps_the_cache_that_it_was_built_with() -> None:
    container = vllm(template(accelerator={"types": ["cpu"]}))
    assert not CACHES & {item["name"] for item in container["env"]}
