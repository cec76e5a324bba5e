"""Models of a hub and of a bucket: looked up once, frozen, served from there, refused by name; what moves is followed only when asked."""

from __future__ import annotations

import base64
import json
import secrets
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from graftwork_store.clients import open_url

from tests.e2e import sources
from tests.e2e.adapters import STORE_SECRET, Bucket
from tests.e2e.service import Service, deployment
from tests.e2e.test_60_import import HUB_VARIABLE, opaque, secrets_of
from tests.harness import install
from tests.harness.kube import Kube, Object, condition

LOOK_SECONDS = 120
NAME = "hubbed"
TOKEN_SECRET = "hub-model-token"
NO_ADAPTERS = {"maxLoaded": 1, "maxRank": 8, "selector": {"matchLabels": {"none": "of-these"}}}
REFUSED = {
    "no-token": ({"source": "hf://acme/gated"}, "SourceGated", ("acme/gated", "HF_TOKEN")),
    "no-revision": ({"source": "hf://acme/open", "revision": "v9"}, "RevisionNotFound", ("acme/open@v9",)),
    "no-repository": ({"source": "hf://acme/nothing"}, "SourceDenied", ("acme/nothing",)),
    "pickles": ({"source": "hf://acme/pickles"}, "UnsupportedFormat", ("pytorch_model.bin", "safetensors")),
}

PREFIX = "s3://data/looked"
KEEPER = "bucketed"
BAD_KEYS, NOWHERE = "bucket-bad-keys", "bucket-nowhere"
REFUSED_BUCKETS = {
    "no-bucket": ("s3://no-such-bucket/tiny", STORE_SECRET, "SourceNotFound", ("s3://no-such-bucket/tiny",)),
    "no-object": (f"{PREFIX}/nothing", STORE_SECRET, "SourceNotFound", ("nothing lies there",)),
    "pickled": (f"{PREFIX}/pickled", STORE_SECRET, "UnsupportedFormat", ("pytorch_model.bin", "safetensors")),
    "bad-keys": (f"{PREFIX}/tiny", BAD_KEYS, "SourceDenied", (f"{PREFIX}/tiny",)),
}


@dataclass(frozen=True)
class Hub:
    """The hub on this machine: where pods reach it, its folder, and the token of its gated repository."""

    address: str
    root: Path
    token: str

    def moved(self, name: str, path: str, data: bytes) -> str:
        """Change a file of a repository and return the commit that its branch main is from now on."""
        (self.root / name / path).write_bytes(data)
        with urllib.request.urlopen(urllib.request.Request(f"{self.address}/-/reload", method="POST"), timeout=20) as answer:
            commits: dict[str, str] = json.load(answer)
        return commits[name]

    def commit(self, name: str) -> str:
        """Return the commit that the branch main is now."""
        wanted = urllib.request.Request(f"{self.address}/api/models/{name}", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(wanted, timeout=20) as answer:
            return str(json.load(answer)["sha"])


def model_files(bucket: Bucket) -> dict[str, bytes]:
    """Return the files of the tiny model in the bucket."""
    client = open_url("s3://models/tiny", bucket.environment)
    return {item["path"]: bytes(obstore.get(client, item["path"]).bytes()) for page in obstore.list(client) for item in page}


@pytest.fixture(scope="module")
def hub(system: Kube, bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with the tiny model, open and gated, and one of pickles, which the operator's configuration names."""
    root, token, files = tmp_path_factory.mktemp("models"), f"hf_{secrets.token_hex(16)}", model_files(bucket)
    assert {"config.json"} < set(files)
    sources.repository(root, "acme/open", files)
    sources.repository(root, "acme/gated", files, [token])
    sources.repository(root, "acme/pickles", {"config.json": files["config.json"], "pytorch_model.bin": b"\x80\x04N."})
    with sources.hub(root, [token]) as address:
        system.run("set", "env", f"deploy/{install.RELEASE}", f"{HUB_VARIABLE}={address}")
        system.run("rollout", "status", f"deploy/{install.RELEASE}", "--timeout=120s", timeout=130)
        yield Hub(address, root, token)
    system.run("set", "env", f"deploy/{install.RELEASE}", f"{HUB_VARIABLE}-")


def gated(name: str, replicas: int = 1) -> Object:
    """Return an LLMDeployment of the gated repository, with its token."""
    return deployment(name, replicas, model={"source": "hf://acme/gated", "credentialsSecret": TOKEN_SECRET}, adapters=NO_ADAPTERS)


@pytest.fixture(scope="module")
def begun(kube: Kube, hub: Hub) -> Iterator[Hub]:
    """The deployment `hubbed` of the gated repository, with its token, and those that are refused; all applied at once."""
    kube.apply(opaque(TOKEN_SECRET, HF_TOKEN=hub.token))
    kube.apply(gated(NAME), *(deployment(name, model=model) for name, (model, _, _) in REFUSED.items()))
    yield hub
    kube.delete("llmdeployment", NAME, *REFUSED)
    kube.delete("secret", TOKEN_SECRET)


@pytest.fixture(scope="module")
def served(kube: Kube, begun: Hub) -> Service:
    """The same deployment when it is Ready."""
    return Service.ready(kube, NAME)


def downloading(pod: Object) -> list[str]:
    """Return the arguments of the container that downloads the model."""
    (download,) = [each for each in pod["spec"]["initContainers"] if each["name"] == "download"]
    return list(download["args"])


def resolved(kube: Kube, name: str) -> Object:
    """Return what a deployment's source is frozen to, once it is."""
    item = kube.wait_condition("llmdeployment", name, "ModelResolved", timeout=LOOK_SECONDS)
    found: Object = item["status"]["model"]["resolved"]
    return found


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_source_that_cannot_be_served_is_refused_by_name_before_a_pod_is_made(kube: Kube, begun: Hub, name: str) -> None:
    _, reason, texts = REFUSED[name]
    found = condition(kube.wait_condition("llmdeployment", name, "Stalled", timeout=LOOK_SECONDS), "Stalled")
    assert found["reason"] == reason, found["message"]
    for text in texts:
        assert text in found["message"]
    assert "graftwork.dev/refresh" in found["message"], "how to have it looked at again is said"
    assert kube.get("deployment", name) is None


def test_the_commit_and_the_facts_are_known_before_the_pods_are_ready(kube: Kube, begun: Hub) -> None:
    found = resolved(kube, NAME)
    assert (found["source"], found["revision"]) == ("hf://acme/gated", begun.commit("acme/gated"))
    assert found["facts"]["architecture"]
    assert found["facts"]["layers"] > 0
    assert found["files"]["bytes"] >= found["facts"]["weightsBytes"] > 0


def test_it_answers_and_its_facts_are_what_the_agent_reads_in_the_files(kube: Kube, served: Service) -> None:
    assert served.ask(NAME).status == 200
    model = (kube.get("llmdeployment", NAME) or {})["status"]["model"]
    assert model["fingerprint"] == model["resolved"]["facts"]["fingerprint"], "by range requests as by the whole files"
    assert model["weightsBytes"] == model["resolved"]["facts"]["weightsBytes"]


def test_the_token_is_in_the_container_that_downloads_only_and_shown_nowhere(kube: Kube, served: Service, begun: Hub) -> None:
    pod = served.pod()
    containers = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    assert {each["name"] for each in containers if TOKEN_SECRET in secrets_of(pod, each)} == {"download"}
    assert f"hf://acme/gated@{begun.commit('acme/gated')}" in downloading(pod)
    jobs = kube.list("jobs", selector=f"graftwork.dev/inspects={NAME}")
    assert begun.token not in json.dumps([pod, jobs, kube.get("llmdeployment", NAME)])


MEASURE = """
import glob, json, os, re
shares = 0
for path in glob.glob("/proc/[0-9]*/smaps_rollup"):
    try:
        text = open(path).read()
    except OSError:  # it has just ended
        continue
    shares += sum(int(kib) << 10 for kib in re.findall(r"^Pss: +([0-9]+) kB", text, re.M))
shm = os.statvfs("/dev/shm")
print(json.dumps({"memory": shares, "shm": shm.f_blocks * shm.f_frsize}))
"""


def test_its_pod_asks_for_what_its_model_needs(kube: Kube, served: Service) -> None:
    pod = served.pod()
    (engine,) = [each for each in pod["spec"]["containers"] if each["name"] == "vllm"]
    asked, limit = (mebibytes(engine["resources"][side]["memory"]) for side in ("requests", "limits"))
    weights = resolved(kube, NAME)["facts"]["weightsBytes"] / 2**20
    assert asked == pytest.approx(2560 + weights + 1024, abs=16), "2.5 GiB, the weights and VLLM_CPU_KVCACHE_SPACE; two small adapters beside it"
    assert limit > 2 * asked
    used = json.loads(kube.run("exec", pod["metadata"]["name"], "-c", "vllm", "--", "python3", "-c", MEASURE).splitlines()[-1])
    assert 0.3 * asked < used["memory"] / 2**20 < asked, "what it has is less than it asks for, and not by far"
    assert used["shm"] == 2**30, "the size of /dev/shm is in force"


def mebibytes(quantity: str) -> float:
    """Return an amount of memory as the API server writes it."""
    units = {"Ki": 1 / 1024, "Mi": 1.0, "Gi": 1024.0}
    return float(quantity[:-2]) * units[quantity[-2:]]


def test_a_branch_that_moves_is_followed_only_when_asked(kube: Kube, served: Service, begun: Hub) -> None:
    before = resolved(kube, NAME)["revision"]
    pods = served.identities()
    newer = begun.moved("acme/gated", "notes.txt", b"a second commit of the same weights")
    assert newer != before
    kube.run("annotate", "llmdeployment", NAME, "e2e/touched=yes")  # something for the operator to look at
    kube.apply(gated("later", replicas=0))
    assert resolved(kube, "later")["revision"] == newer, "the change is there for who asks for it"
    assert resolved(kube, NAME)["revision"] == before
    assert served.identities() == pods
    kube.delete("llmdeployment", "later")
    kube.run("annotate", "llmdeployment", NAME, "graftwork.dev/refresh=1")
    kube.wait("llmdeployment", NAME, lambda item: item["status"]["model"]["resolved"]["revision"] == newer, LOOK_SECONDS, "the new commit")
    kube.wait("llmdeployment", NAME, lambda item: item["status"]["rollout"]["revision"] == 2, LOOK_SECONDS, "its revision")
    Service.ready(kube, NAME)
    assert f"hf://acme/gated@{newer}" in downloading(served.pod())
    assert served.ask(NAME).status == 200


def of_a_bucket(name: str, source: str, secret: str, replicas: int = 0) -> Object:
    """Return an LLMDeployment of a bucket; without replicas it is looked up, and no engine starts."""
    return deployment(name, replicas, model={"source": source, "credentialsSecret": secret}, adapters=NO_ADAPTERS)


@pytest.fixture(scope="module")
def looked(kube: Kube, bucket: Bucket) -> Iterator[Bucket]:
    """LLMDeployments of buckets without pods, all applied at once: one that is served, some that are refused, one whose server does not answer."""
    files = model_files(bucket)
    bucket.put(f"{PREFIX}/tiny", files)
    bucket.put(f"{PREFIX}/pickled", {"config.json": files["config.json"], "pytorch_model.bin": b"\x80\x04N."})
    keys = {name: bucket.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    inside = base64.b64decode((kube.get("secret", STORE_SECRET) or {})["data"]["AWS_ENDPOINT_URL"]).decode()
    kube.apply(
        opaque(BAD_KEYS, **keys | {"AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}, AWS_ENDPOINT_URL=inside),
        opaque(NOWHERE, **keys, AWS_ENDPOINT_URL="http://127.0.0.1:1"),
        of_a_bucket(KEEPER, f"{PREFIX}/tiny", STORE_SECRET),
        of_a_bucket("unreachable", f"{PREFIX}/tiny", NOWHERE),
        *(of_a_bucket(name, source, secret) for name, (source, secret, _, _) in REFUSED_BUCKETS.items()),
    )
    yield bucket
    kube.delete("llmdeployment", KEEPER, "unreachable", *REFUSED_BUCKETS)
    kube.delete("secret", BAD_KEYS, NOWHERE)


@pytest.mark.parametrize("name", sorted(REFUSED_BUCKETS))
def test_a_bucket_that_cannot_be_served_is_refused_by_name_before_a_pod_is_made(kube: Kube, looked: Bucket, name: str) -> None:
    _, _, reason, texts = REFUSED_BUCKETS[name]
    found = condition(kube.wait_condition("llmdeployment", name, "Stalled", timeout=LOOK_SECONDS), "Stalled")
    assert found["reason"] == reason, found["message"]
    for text in (*texts, "graftwork.dev/refresh"):
        assert text in found["message"]
    assert kube.get("deployment", name) is None


def test_a_bucket_that_does_not_answer_is_asked_again_and_nothing_stalls(kube: Kube, looked: Bucket) -> None:
    def unreachable(item: Object) -> bool:
        return bool(condition(item, "ModelResolved").get("reason") == "SourceUnreachable")

    item = kube.wait("llmdeployment", "unreachable", unreachable, LOOK_SECONDS, "SourceUnreachable")
    assert condition(item, "Stalled")["status"] == "False"
    assert kube.get("deployment", "unreachable") is None


def test_a_bucket_is_the_same_model_as_the_hub_s_and_its_listing_is_its_revision(kube: Kube, looked: Bucket) -> None:
    found = resolved(kube, KEEPER)
    assert found["files"]["digest"] == f"sha256:{found['revision']}"
    assert found["facts"]["layers"] > 0
    template = kube.wait("deployment", KEEPER, lambda item: True, 30, "there")["spec"]["template"]
    assert f"sha256:{found['revision']}" in downloading(template)


def test_a_bucket_that_changes_starts_no_other_model_and_is_followed_when_asked(kube: Kube, looked: Bucket) -> None:
    before = resolved(kube, KEEPER)["revision"]
    looked.put(f"{PREFIX}/tiny", {"notes.txt": b"other files than those that were looked up"})
    kube.patch("llmdeployment", KEEPER, {"spec": {"replicas": 1}})
    found = condition(kube.wait_condition("llmdeployment", KEEPER, "Stalled", timeout=LOOK_SECONDS), "Stalled")
    assert found["reason"] == "SourceChanged", found["message"]
    assert f"kubectl annotate llmd {KEEPER} graftwork.dev/refresh" in found["message"]
    kube.patch("llmdeployment", KEEPER, {"spec": {"replicas": 0}})
    kube.run("annotate", "llmdeployment", KEEPER, "graftwork.dev/refresh=1")
    kube.wait("llmdeployment", KEEPER, lambda item: item["status"]["model"]["resolved"]["revision"] != before, LOOK_SECONDS, "the new listing")
    kube.wait("llmdeployment", KEEPER, lambda item: item["status"]["rollout"]["revision"] == 2, LOOK_SECONDS, "its revision")
