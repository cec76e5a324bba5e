"""What a shared cache is decided, sized and kept by."""

from __future__ import annotations

from typing import Any

import pytest
from graftwork import names
from graftwork.api import LLMDeployment
from graftwork.config import CacheConfig, Config
from graftwork.facts.inspected import Resolved
from graftwork.plan import cache, serving, sources, storage_classes
from graftwork.plan.revisions import template_hash
from graftwork.plan.sources import Source

from tests.unit.runtime.fakes import CONFIG

GIB = 2**30
COMMIT = "a" * 40


def deployment(source: str = "s3://models/tiny", cpu: bool = True, **settings: Any) -> LLMDeployment:
    accelerator = {"types": ["cpu"]} if cpu else {}
    spec = {"model": {"source": source, "credentialsSecret": "keys"}, "cache": settings, "accelerator": accelerator}
    return LLMDeployment.from_object({"metadata": {"name": "tiny", "namespace": "ml"}, "spec": spec})


def resolved(source: str = "hf://acme/tiny", size: int = 700) -> Resolved:
    found = Resolved.from_object(
        {
            "key": "k",
            "source": source,
            "revision": COMMIT,
            "files": {"count": 3, "bytes": size, "largestBytes": 600, "digest": "sha256:" + "e" * 64},
            "facts": {"fingerprint": "sha256:" + "1" * 64, "architecture": "X", "parameters": 3, "weightsBytes": 6},
        }
    )
    assert found
    return found


def source_of(text: str) -> Source:
    found = sources.parse("x", text, sources.MODEL_KINDS)
    assert isinstance(found, Source)
    return found


def storage_class(provisioner: str, name: str = "files", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **more.pop("metadata", {})}, "provisioner": provisioner, **more}


@pytest.mark.parametrize(
    ("provisioner", "shared"),
    [
        ("efs.csi.aws.com", True),
        ("rook-ceph.cephfs.csi.ceph.com", True),
        ("rook-ceph.rbd.csi.ceph.com", False),
        ("ebs.csi.aws.com", False),
        ("rancher.io/local-path", False),
        ("somebody.else/files", None),
        ("kubernetes.io/no-provisioner", None),
    ],
)
def test_a_provisioner_is_known_or_it_is_not(provisioner: str, shared: bool | None) -> None:
    found = storage_classes.find([storage_class(provisioner)], "files", CacheConfig())
    assert found
    assert found.shared is shared


def test_the_configuration_knows_its_classes_better() -> None:
    classes = [storage_class("rancher.io/local-path"), storage_class("efs.csi.aws.com", "slow")]
    config = CacheConfig(shared_classes=("files",), single_node_classes=("slow",))
    assert [found.shared for name in ("files", "slow") if (found := storage_classes.find(classes, name, config))] == [True, False]


def test_without_a_name_it_is_the_newest_default_class() -> None:
    default = {"annotations": {storage_classes.DEFAULT: "true"}}
    old, new = ({**default, "creationTimestamp": f"2026-11-{day}T00:00:00Z"} for day in (20, 21))
    classes = [storage_class("a", "new", metadata=new), storage_class("b", "old", metadata=old), storage_class("c", "other")]
    found = storage_classes.find(classes, "", CacheConfig())
    assert found
    assert found.name == "new"
    assert storage_classes.find(classes[2:], "", CacheConfig()) is None


def decided(text: str, provisioner: str | None, *, known: bool = True, bound: bool = False, **settings: Any) -> cache.Decision:
    found = storage_classes.find([storage_class(provisioner)] if provisioner else [], "files", CacheConfig())
    return cache.decide(deployment(text, **settings), source_of(text), resolved(text) if known else None, found, bound=bound)


@pytest.mark.parametrize(
    ("mode", "provisioner", "expected"),
    [
        ("auto", "efs.csi.aws.com", ("Shared", None)),
        ("auto", "ebs.csi.aws.com", ("PerPod", None)),
        ("auto", "somebody.else/files", ("PerPod", None)),
        ("auto", None, ("PerPod", None)),
        ("PerPod", "efs.csi.aws.com", ("PerPod", None)),
        ("Shared", "efs.csi.aws.com", ("Shared", None)),
        ("Shared", "somebody.else/files", ("Shared", None)),
        ("Shared", "ebs.csi.aws.com", ("Shared", "CacheNotShared")),
        ("Shared", None, ("Shared", "CacheNotShared")),
    ],
)
def test_the_mode_follows_from_what_the_class_can_do(mode: str, provisioner: str | None, expected: tuple[str, str | None]) -> None:
    found = decided("hf://acme/tiny", provisioner, mode=mode)
    assert (found.mode, found.problem and str(found.problem.reason)) == expected
    assert found.why


def test_a_class_that_is_named_may_be_one_of_volumes_that_were_made_by_hand() -> None:
    assert decided("hf://acme/tiny", None, mode="Shared", storageClass="by-hand").problem is None


def test_a_claim_that_has_a_shared_volume_proves_it() -> None:
    assert decided("hf://acme/tiny", "somebody.else/files", bound=True).mode == "Shared"
    assert decided("hf://acme/tiny", "ebs.csi.aws.com", bound=True, mode="Shared").problem is None


def test_an_unknown_class_says_how_to_make_it_known() -> None:
    assert "cache.sharedClasses" in decided("hf://acme/tiny", "somebody.else/files").why


def test_without_a_size_there_is_no_claim() -> None:
    assert decided("s3://models/tiny", "efs.csi.aws.com", known=False).mode == "PerPod"
    problem = decided("s3://models/tiny", "efs.csi.aws.com", known=False, mode="Shared").problem
    assert problem
    assert names.ANNOTATION_REFRESH in problem.message


def test_the_claim_of_a_source_is_mounted_as_it_is() -> None:
    assert decided("pvc://weights/tiny", "efs.csi.aws.com", known=False).mode == "None"


@pytest.mark.parametrize(
    ("settings", "cpu", "kept", "expected"),
    [
        ({}, True, [5 * GIB], 11 * GIB),  # two revisions and a tenth
        ({}, False, [5 * GIB], 13 * GIB),
        ({"keep": 1}, True, [5 * GIB], 6 * GIB),
        ({"keep": 1}, True, [5 * GIB, 5 * GIB], 11 * GIB),  # while the old one serves
        ({"keep": 2}, True, [5 * GIB, 10 * GIB], 17 * GIB),
        ({}, True, [700], GIB),
        ({"size": "100Gi"}, True, [5 * GIB], 100 * GIB),
        ({"size": 5000}, True, [700], 5000),
    ],
)
def test_the_size_is_of_what_stays(settings: dict[str, Any], cpu: bool, kept: list[int], expected: int) -> None:
    assert cache.size_bytes(deployment(cpu=cpu, **settings), kept[0], kept) == expected


def test_a_size_that_the_model_does_not_fit_into_is_told_before_anything_is_made() -> None:
    problem = cache.room_problem(deployment(size="1Gi"), 2 * GIB)
    assert problem
    assert (str(problem.reason), problem.needs_user) == ("DiskFull", True)
    assert "3Gi" in problem.message
    assert cache.room_problem(deployment(size="2Gi"), 2 * GIB) is None
    assert cache.room_problem(deployment(), 2 * GIB) is None


@pytest.mark.parametrize(
    ("known", "used", "number", "expected"),
    [
        ([], (), 2, "w"),
        (["a", "b", "c"], (), 2, "aw"),
        (["a", "b", "c"], ("c",), 2, "acw"),
        (["a", "b", "c"], ("c", "b", ""), 1, "bcw"),
        (["w", "a"], (), 2, "aw"),
        (["a", "w", "b"], (), 2, "aw"),
    ],
)
def test_what_is_used_stays_and_of_the_rest_the_newest(known: list[str], used: tuple[str, ...], number: int, expected: str) -> None:
    assert cache.keep("w", known, used, number) == list(expected)


def template(mode: str = "Shared", text: str = "hf://acme/tiny") -> dict[str, Any]:
    cached = cache.Cached("tiny-cache", "0123456789ab") if mode == "Shared" else None
    return serving.pod_template(deployment(text), serving.Inputs(source_of(text), cached=cached), CONFIG, "hash")


def test_a_template_says_how_its_pods_get_the_model() -> None:
    hub, claim = source_of("hf://acme/tiny"), source_of("pvc://tiny-cache/models/0123456789ab")
    assert cache.frozen(template(), hub, "tiny-cache") == "Shared"
    assert cache.frozen(template("PerPod"), hub, "tiny-cache") == "PerPod"
    assert cache.frozen(template("None", claim.text), claim, "tiny-cache") == "None"
    assert cache.mounted(template()["spec"], "tiny-cache") == "0123456789ab"
    assert cache.mounted(template()["spec"], "other-cache") == ""


def test_pods_of_a_shared_cache_have_no_credentials_and_write_no_model() -> None:
    spec = template(text="s3://models/tiny")["spec"]
    assert [item["name"] for item in spec["initContainers"]] == ["install", "agent"]
    assert "keys" not in str(spec)
    mounts = [mount for each in (*spec["initContainers"], *spec["containers"]) for mount in each["volumeMounts"] if mount["name"] == "model"]
    assert [(mount["subPath"], mount["readOnly"]) for mount in mounts] == [("models/0123456789ab", True)] * 2


def test_what_is_compiled_is_kept_by_engine_and_flags() -> None:
    def compiled(**engine: Any) -> str:
        made = deployment(cpu=False, mode="Shared")
        spec = made.spec.model_copy(update={"engine": made.spec.engine.model_copy(update=engine)})
        inputs = serving.Inputs(source_of("s3://models/tiny"), cached=cache.Cached("tiny-cache", "0123456789ab"))
        pod = serving.pod_template(made.model_copy(update={"spec": spec}), inputs, CONFIG, "hash")["spec"]
        assert [mount["subPath"] for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"] == serving.COMPILED] == ["compile"]
        (root,) = [item["value"] for item in pod["containers"][0]["env"] if item["name"] == "VLLM_CACHE_ROOT"]
        assert root.startswith(f"{serving.COMPILED}/"), "a folder that the engine makes, and no kubelet as root"
        return str(root)

    assert compiled() == compiled()
    assert len({compiled(), compiled(image="engine:2"), compiled(dtype="half"), compiled(enforce_eager=True)}) == 4


def job(kept: tuple[str, ...] = (), config: Config = CONFIG, **settings: Any) -> dict[str, Any]:
    return cache.fill_job(deployment("hf://acme/tiny", **settings), source_of("hf://acme/tiny"), resolved(), kept, config, claim_uid="uid-claim")


def test_a_fill_is_told_what_to_keep_and_can_be_asked_for_it() -> None:
    key = cache.key("hf://acme/tiny", COMMIT)
    assert cache.asked(job(("0123456789ab",))) == (key, {key, "0123456789ab"})
    assert cache.asked({"metadata": {}, "spec": {}}) == ("", frozenset())


def test_the_annotation_of_a_fill_is_of_everything_but_what_is_kept() -> None:
    def of(made: dict[str, Any]) -> str:
        return str(made["metadata"]["annotations"][names.ANNOTATION_TEMPLATE_HASH])

    other = CONFIG.model_copy(update={"images": CONFIG.images.model_copy(update={"agent": "agent:2"})})
    assert of(job()) == of(job(("0123456789ab",))) != of(job(config=other))


def test_names_fit_into_labels_and_differ() -> None:
    long = ["a" * 52, "a" * 51 + "b"]
    assert all(len(names.fill_job(name, "0123456789ab")) <= 63 for name in long)
    assert len({names.fill_job(name, "0123456789ab") for name in long}) == 2
    assert names.fill_job("tiny", "0123456789ab") == "tiny-fill-0123456789ab"


def test_only_the_mode_and_the_class_make_another_template() -> None:
    plain = template_hash(deployment())
    assert template_hash(deployment(mode="auto", size="100Gi", keep=5)) == plain
    assert len({plain, template_hash(deployment(mode="Shared")), template_hash(deployment(storageClass="files"))}) == 3


@pytest.mark.parametrize("cpu", [True, False])
def test_a_fill_goes_where_pods_with_gpus_may(cpu: bool) -> None:
    found = cache.fill_job(deployment(cpu=cpu), source_of("s3://models/tiny"), resolved("s3://models/tiny"), [], CONFIG, claim_uid="uid-claim")
    expected = [] if cpu else [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert found["spec"]["template"]["spec"].get("tolerations", []) == expected
