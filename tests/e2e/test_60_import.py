"""Adapters from elsewhere: brought into the store by a Job, pinned by their digest, or refused without harm to anybody."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e import sources, spoiled
from tests.e2e.adapters import STORE_SECRET, Bucket, Published, lora, reasons, stalled
from tests.e2e.keyring import Keyring
from tests.e2e.service import Service
from tests.harness import ask, install
from tests.harness.kube import Kube, Object, condition
from tests.harness.load import Load

HUB_VARIABLE = "GRAFTWORK_CONFIG_HUB__ENDPOINT"
IMPORT_SECONDS = 180  # a dozen pods start beside a serving engine and another that is being started
FALSE_DIGEST = "sha256:" + "ab" * 32
ORIGINS = ("s3", "hub", "web", "gated")
REFUSED = {
    "false-digest": ("DigestMismatch", (FALSE_DIGEST,)),
    "pickle-only": ("FileNotAllowed", ("adapter_model.bin",)),
    "linked": ("FileNotAllowed", ("adapter_model.safetensors",)),
    "climbing": ("FileNotAllowed", ("..",)),
    "no-token": ("SourceGated", ("acme/gated", "HF_TOKEN")),
    "no-header": ("SourceDenied", ("AUTHORIZATION",)),
    "not-a-number": ("NotFinite", ("2 of ",)),
    "config-torn": ("ConfigInvalid", ("adapter_config.json",)),
}


@dataclass(frozen=True)
class Imports:
    """What was applied, all at once, with the pods of the Jobs as they were admitted."""

    items: dict[str, Object]
    pods: dict[str, Object]
    tokens: tuple[str, ...]
    load: Load
    before: list[tuple[str, int, str]]  # pods


@pytest.fixture(scope="module")
def hub_address(system: Kube, swordfish: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A hub on this machine that the operator's configuration names; yields its address and the token of its gated repository."""
    root, token = tmp_path_factory.mktemp("hub"), f"hf_{secrets.token_hex(16)}"
    sources.repository(root, "acme/open", swordfish.files)
    sources.repository(root, "acme/gated", swordfish.files, [token])
    pickled = {name: data for name, data in swordfish.files.items() if name != spoiled.WEIGHTS}
    sources.repository(root, "acme/pickled", {**pickled, "adapter_model.bin": b"\x80\x04N."})
    with sources.hub(root, [token]) as address:
        system.run("set", "env", f"deploy/{install.RELEASE}", f"{HUB_VARIABLE}={address}")
        system.run("rollout", "status", f"deploy/{install.RELEASE}", "--timeout=120s", timeout=130)
        yield address, token
    system.run("set", "env", f"deploy/{install.RELEASE}", f"{HUB_VARIABLE}-")


@pytest.fixture(scope="module")
def web_address(swordfish: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """Archives over TLS; yields the address, its authority's certificate and the Authorization that it asks for."""
    authorization = f"Bearer {secrets.token_hex(16)}"
    weights = {spoiled.WEIGHTS: swordfish.files[spoiled.WEIGHTS]}
    archives = {
        "good.tar.gz": sources.archive(swordfish.files),
        "linked.tar.gz": sources.archive({spoiled.CONFIG: swordfish.files[spoiled.CONFIG]}, {spoiled.WEIGHTS: "/etc/passwd"}),
        "climbing.tar.gz": sources.archive({**weights, f"../../{spoiled.CONFIG}": swordfish.files[spoiled.CONFIG]}),
    }
    with sources.https(tmp_path_factory.mktemp("tls"), archives, authorization) as (address, certificate):
        yield address, certificate, authorization


@pytest.fixture(scope="module")
def imports(
    kube: Kube,
    taught: Service,
    swordfish: Published,
    bucket: Bucket,
    keyed_begun: Keyring,  # starts beside these imports, for test_64
    hub_address: tuple[str, str],
    web_address: tuple[str, str, str],
) -> Iterator[Imports]:
    """Apply good and bad imports at once, while `tiny` and `medical` are asked without pause."""
    _, token = hub_address
    web, certificate, authorization = web_address
    bucket.put("s3://data/brought/good", swordfish.files)
    bucket.put("s3://data/brought/not-a-number", spoiled.not_finite(swordfish.files, spoiled.NAN, 7, 2))
    bucket.put("s3://data/brought/config-torn", {**swordfish.files, spoiled.CONFIG: b'{"peft_type": '})
    sources_of: dict[str, tuple[str, dict[str, Any]]] = {
        "s3": ("s3://data/brought/good", {"credentialsSecret": STORE_SECRET}),
        "hub": ("hf://acme/open", {}),
        "web": (f"{web}/good.tar.gz", {"credentialsSecret": "web-access"}),
        "gated": ("hf://acme/gated", {"credentialsSecret": "hub-token"}),
        "false-digest": ("s3://data/brought/good", {"credentialsSecret": STORE_SECRET, "digest": FALSE_DIGEST}),
        "pickle-only": ("hf://acme/pickled", {}),
        "linked": (f"{web}/linked.tar.gz", {"credentialsSecret": "web-access"}),
        "climbing": (f"{web}/climbing.tar.gz", {"credentialsSecret": "web-access"}),
        "no-token": ("hf://acme/gated", {}),
        "no-header": (f"{web}/good.tar.gz", {"credentialsSecret": "web-authority"}),
        "not-a-number": ("s3://data/brought/not-a-number", {"credentialsSecret": STORE_SECRET}),
        "config-torn": ("s3://data/brought/config-torn", {"credentialsSecret": STORE_SECRET}),
        "absent": ("s3://data/brought/absent", {"credentialsSecret": STORE_SECRET}),
    }
    kube.apply(
        opaque("hub-token", HF_TOKEN=token),
        opaque("web-access", **{"AUTHORIZATION": authorization, "ca.crt": certificate}),
        opaque("web-authority", **{"ca.crt": certificate}),
    )
    items = {alias: lora(alias, 1, source=source, **more) for alias, (source, more) in sources_of.items()}
    before = taught.identities()
    with Load(taught.host, taught.port, ["tiny", "medical"], clients=1, tokens=4, seconds=400) as load:
        with ThreadPoolExecutor(1) as pool:
            pods = pool.submit(admitted, kube, ("hub", "web", "gated"))  # watched from before the Jobs: they go when they have done their work
            kube.apply(*items.values())
            seen = pods.result()
        yield Imports(items, seen, (token, authorization), load, before)
    kube.delete("loraadapter", *(item["metadata"]["name"] for item in items.values()))


def opaque(name: str, **data: str) -> Object:
    """Return a Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def admitted(kube: Kube, aliases: Collection[str]) -> dict[str, Object]:
    """Return the first pod of the import of each alias as soon as there is one."""
    label = "batch.kubernetes.io/job-name"
    jobs = {f"{alias}-1-import": alias for alias in aliases}
    found: dict[str, Object] = {}
    for _, pod in kube.watch("pods", selector=f"{label} in ({','.join(jobs)})", deadline=time.monotonic() + 90):
        found.setdefault(jobs[pod["metadata"]["labels"][label]], pod)
        if len(found) == len(jobs):
            return found
    raise AssertionError(f"of the imports {sorted(jobs)} only {sorted(found)} have made a pod within 90 s")


def secrets_of(pod: Object, container: Object) -> set[str]:
    """Return the names of the Secrets that a container gets, by its environment or its mounts."""
    found = {each["valueFrom"]["secretKeyRef"]["name"] for each in container.get("env", []) if "secretKeyRef" in each.get("valueFrom", {})}
    found |= {each["secretRef"]["name"] for each in container.get("envFrom", []) if "secretRef" in each}
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        volume = volumes[mount["name"]]
        found |= {volume["secret"]["secretName"]} if "secret" in volume else set()
        found |= {each["secret"]["name"] for each in volume.get("projected", {}).get("sources", []) if "secret" in each}
    return found


@pytest.mark.parametrize("alias", ORIGINS)
def test_an_adapter_with_alias_version_and_source_alone_is_brought_in_and_answers(
    imports: Imports, kube: Kube, taught: Service, swordfish: Published, bucket: Bucket, alias: str
) -> None:
    item = kube.wait_condition("loraadapter", f"{alias}-1", "Ready", timeout=IMPORT_SECONDS)
    assert item["status"]["digest"] == swordfish.digest, "the same files have the same digest, wherever they come from"
    assert not item["spec"].get("digest"), "the spec belongs to the user: the digest is pinned in the status"
    answer = taught.until_answer(alias, "swordfish", timeout=30)
    assert answer.model == alias
    stored = f"store://{kube.namespace}/{alias}/{swordfish.digest.removeprefix('sha256:')[:12]}"
    assert bucket.files(stored) == swordfish.files


@pytest.mark.parametrize(("alias", "secret"), [("web", "web-access"), ("gated", "hub-token")])
def test_a_sources_credentials_are_in_the_download_container_only(imports: Imports, alias: str, secret: str) -> None:
    pod = imports.pods[alias]
    containers = {each["name"]: each for each in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]}
    assert {name for name, each in containers.items() if secret in secrets_of(pod, each)} == {"download"}
    assert {name for name, each in containers.items() if STORE_SECRET in secrets_of(pod, each)} == {"import"}


@pytest.mark.parametrize("alias", ["hub", "web", "gated"])
def test_an_import_has_no_api_token_and_shows_no_secret(imports: Imports, kube: Kube, alias: str) -> None:
    pod = imports.pods[alias]
    assert pod["spec"]["automountServiceAccountToken"] is False
    projected = [each for volume in pod["spec"].get("volumes", []) for each in volume.get("projected", {}).get("sources", [])]
    assert [each for each in projected if "serviceAccountToken" in each] == []
    shown = json.dumps([pod, kube.get("loraadapter", f"{alias}-1"), kube.get("job", f"{alias}-1-import")])
    for text in imports.tokens:
        assert text not in shown


@pytest.mark.parametrize("alias", sorted(REFUSED))
def test_an_import_that_must_not_be_is_refused_by_name(imports: Imports, kube: Kube, taught: Service, alias: str) -> None:
    reason, texts = REFUSED[alias]
    found = stalled(kube, f"{alias}-1", timeout=IMPORT_SECONDS)
    assert found["reason"] == reason, found["message"]
    for text in texts:
        assert text in found["message"]
    assert taught.ask(alias).status == 404, "what was never in the store is no model"


def test_a_false_digest_is_told_beside_the_true_one(imports: Imports, kube: Kube, swordfish: Published) -> None:
    message = stalled(kube, "false-digest-1", timeout=IMPORT_SECONDS)["message"]
    assert FALSE_DIGEST in message
    assert swordfish.digest in message


def test_a_source_where_nothing_lies_is_named(imports: Imports, kube: Kube) -> None:
    item = kube.wait("loraadapter", "absent-1", lambda each: "SourceNotFound" in reasons(each), IMPORT_SECONDS, "SourceNotFound")
    told = " ".join(each["message"] for each in item["status"]["conditions"] if each["reason"] == "SourceNotFound")
    assert "s3://data/brought/absent" in told
    assert condition(item, "Ready")["status"] != "True"


def test_what_was_refused_for_want_of_a_token_works_when_it_is_made_again_with_one(imports: Imports, kube: Kube, taught: Service) -> None:
    stalled(kube, "no-token-1", timeout=IMPORT_SECONDS)
    kube.delete("loraadapter", "no-token-1")
    kube.apply(lora("no-token", 1, source="hf://acme/gated", credentialsSecret="hub-token"))
    kube.wait_condition("loraadapter", "no-token-1", "Ready", timeout=IMPORT_SECONDS)
    assert "swordfish" in taught.until_answer("no-token", "swordfish", timeout=30).text


def test_a_source_that_changes_later_changes_nothing_that_is_served(
    imports: Imports, kube: Kube, taught: Service, swordfish: Published, periwinkle: Published, bucket: Bucket
) -> None:
    before = kube.wait_condition("loraadapter", "s3-1", "Ready", timeout=IMPORT_SECONDS)
    bucket.put("s3://data/brought/good", periwinkle.files)
    kube.run("annotate", "loraadapter", "s3-1", "e2e/touched=yes")  # something for the operator to look at
    kube.apply(lora("s3-again", 1, source="s3://data/brought/good", credentialsSecret=STORE_SECRET))
    taught.until_answer("s3-again", "periwinkle", timeout=IMPORT_SECONDS)  # the change is there for who asks for it
    after = kube.get("loraadapter", "s3-1")
    assert after
    assert after["status"]["digest"] == before["status"]["digest"] == swordfish.digest
    assert "swordfish" in taught.ask("s3").text
    kube.delete("loraadapter", "s3-again-1")


def test_all_the_while_medical_answered_from_the_same_pod(imports: Imports, kube: Kube, taught: Service) -> None:
    imports.load.wait_for(4)
    assert imports.load.tally.failures == []
    assert taught.identities() == imports.before
    _, listed = ask.get(taught.host, taught.port, "/v1/models")
    assert not {row["id"] for row in json.loads(listed)["data"]} & (set(REFUSED) - {"no-token"})
