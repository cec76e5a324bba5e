"""Adapters as a user brings them: their files from and to the bucket, and the LoRAAdapters that name them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import obstore
import yaml
from graftwork_store import manifest as manifests
from graftwork_store.clients import ObjectStore, open_url
from graftwork_store.digest import FileEntry, digest_of
from graftwork_store.manifest import MANIFEST_FILE, parse_source, source_for
from graftwork_store.store import Store

from tests.e2e.service import Service
from tests.harness import install
from tests.harness.kube import Kube, Object, condition

STORE_SECRET = "graftwork-store"
Files = Mapping[str, bytes]  # name -> content


def entries_of(files: Files) -> list[FileEntry]:
    """Return what a manifest says of files."""
    return [FileEntry(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()]


def digest(files: Files) -> str:
    """Return the digest of an adapter's files (contracts, section 9)."""
    return digest_of(entries_of(files))


@dataclass(frozen=True)
class Bucket:
    """The S3 server of the cluster as this machine reaches it: by its Service's address, with the keys of the Secret."""

    environment: Mapping[str, str]

    @classmethod
    def connect(cls, kube: Kube, system: Kube) -> Bucket:
        """Return the store that the operator's configuration names."""
        secret, service = kube.get("secret", STORE_SECRET), system.get("service", f"{install.RELEASE}-store")
        configuration = system.get("configmap", f"{install.RELEASE}-config")
        assert secret
        assert service
        assert configuration
        keys = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
        endpoint = f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"
        url = yaml.safe_load(configuration["data"]["config.yaml"])["store"]["url"]
        return cls({**keys, "AWS_ENDPOINT_URL": endpoint, "GRAFTWORK_STORE_URL": url})

    @property
    def url(self) -> str:
        """Where the store lies: `s3://<bucket>/<prefix>`."""
        return self.environment["GRAFTWORK_STORE_URL"]

    def names(self, folder: str) -> set[str]:
        """Return the names of what lies in a folder of the store."""
        return {item["path"].rpartition("/")[2] for page in obstore.list(self._open(self.url), folder) for item in page}

    def remove(self, folder: str) -> None:
        """Remove what lies in a folder of the store."""
        client = self._open(self.url)
        for name in self.names(folder):
            obstore.delete(client, f"{folder}/{name}")

    def _open(self, url: str) -> ObjectStore:
        return open_url(url, self.environment)

    def files(self, source: str) -> dict[str, bytes]:
        """Return the files of a published adapter, by its `store://` source."""
        found = Store.from_env(self.environment).read_manifest(source)
        client, folder = self._open(self.environment["GRAFTWORK_STORE_URL"]), parse_source(source).folder
        return {entry.path: bytes(obstore.get(client, f"{folder}/{entry.path}").bytes()) for entry in found.files}

    def put(self, url: str, files: Files) -> None:
        """Write files below `s3://<bucket>/<prefix>`."""
        client = self._open(url)
        for name, data in files.items():
            obstore.put(client, name, data)

    def publish(self, alias: str, files: Files, fields: Mapping[str, Any], *, namespace: str, stored: Files | None = None) -> tuple[str, str]:
        """Publish files with a manifest of their own, and return source and digest.

        `stored` is what is really written where it differs from what the manifest says; names that lead out of the folder are in the manifest only.
        """
        entries = entries_of(files)
        source = source_for(namespace, alias, digest_of(entries))
        inside = {name: data for name, data in (stored or files).items() if "/" not in name}
        self.put(f"{self.environment['GRAFTWORK_STORE_URL']}/{source.folder}", {**inside, MANIFEST_FILE: manifests.build(alias, entries, fields)})
        return source.uri, digest_of(entries)


@dataclass(frozen=True)
class Published:
    """An adapter that a run published: its LoRAAdapter, its files, and the word that it answers."""

    item: Object
    files: dict[str, bytes]
    word: str

    @classmethod
    def of(cls, service: Service, bucket: Bucket, name: str, word: str) -> Published:
        """Return what the LoRAAdapter `name` stands for."""
        item = service.kube.get("loraadapter", name)
        assert item, f"LoRAAdapter {name} is not there"
        return cls(item, bucket.files(item["spec"]["source"]), word)

    @property
    def digest(self) -> str:
        """The digest of its files."""
        return str(self.item["spec"]["digest"])

    @property
    def manifest_fields(self) -> dict[str, Any]:
        """What a manifest says of it besides its files."""
        base = {"source": self.item["spec"]["baseModel"].get("source", ""), "fingerprint": self.item["spec"]["baseModel"]["fingerprint"]}
        return {"rank": self.item["spec"]["rank"], "targetModules": ["q_proj"], "base": base, "lineage": {}}

    def under(self, alias: str, version: int = 1, labels: Mapping[str, str] | None = None, **spec: Any) -> Object:
        """Return a LoRAAdapter of the same files under another alias; `spec` replaces fields."""
        same = {field: value for field, value in self.item["spec"].items() if field not in ("alias", "version")}
        return lora(alias, version, labels, **{**same, "owner": alias, **spec})

    def variant(self, bucket: Bucket, alias: str, version: int, *, namespace: str) -> Object:
        """Publish the same adapter with other bytes (blank lines at the end of its config), so that each version has a digest of its own."""
        files = {**self.files, "adapter_config.json": self.files["adapter_config.json"] + b"\n" * version}
        source, its_digest = bucket.publish(alias, files, self.manifest_fields, namespace=namespace)
        return self.under(alias, version, source=source, digest=its_digest)


def lora(alias: str, version: int, labels: Mapping[str, str] | None = None, **spec: Any) -> Object:
    """Return a LoRAAdapter `<alias>-<version>`; with alias, version and source alone it is what a user who brings an adapter writes."""
    return {
        "apiVersion": "graftwork.dev/v1alpha1",
        "kind": "LoRAAdapter",
        "metadata": {"name": f"{alias}-{version}", "labels": dict(labels or {})},
        "spec": {**spec, "alias": alias, "version": version},
    }


def engine_name(item: Object) -> str:
    """Return the name under which the engine knows a LoRAAdapter (contracts, section 1)."""
    return f"{item['spec']['alias']}--{item['spec']['digest'].removeprefix('sha256:')[:12]}"


def stalled(kube: Kube, name: str, timeout: float = 60) -> Object:
    """Return a LoRAAdapter's condition Stalled as soon as it is true."""
    return condition(kube.wait_condition("loraadapter", name, "Stalled", timeout=timeout), "Stalled")


def reasons(item: Object) -> set[str]:
    """Return the reasons of all conditions of an object."""
    return {str(each["reason"]) for each in item.get("status", {}).get("conditions", [])}
