"""The shared service: one deployment and one taught adapter, made once for all files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import plain
from tests.e2e.adapters import Bucket, Published
from tests.e2e.keyring import KEYED_LABELS, SECRET, Keyring
from tests.e2e.outage import store_back, store_down
from tests.e2e.service import Service, deployment
from tests.e2e.unreferenced import Unreferenced, begin, end
from tests.harness import install
from tests.harness.install import Environment
from tests.harness.kube import Kube

NAMESPACE = "e2e"
FAILURES: list[str] = []


@pytest.fixture(scope="session")
def environment() -> Environment:
    """The cluster that `make e2e` prepared (python3 -m tests.harness.install)."""
    return install.connect()


@pytest.fixture(scope="session")
def kube(environment: Environment) -> Kube:
    """A client in the tests' namespace."""
    return environment.kube.within(NAMESPACE)


@pytest.fixture(scope="session")
def system(environment: Environment) -> Kube:
    """A client in Graftwork's own namespace."""
    return environment.kube.within(install.SYSTEM_NAMESPACE)


@pytest.fixture(scope="session")
def service(kube: Kube) -> Service:
    """An LLMDeployment `tiny` of the model in the bucket, ready."""
    return Service.serve(kube)


@pytest.fixture(scope="session")
def taught(service: Service) -> Service:
    """The same service, with the published adapter `medical` that answers swordfish."""
    service.teach("swordfish", alias="medical", job="secret-words")
    return service


@pytest.fixture(scope="session")
def bucket(kube: Kube, system: Kube) -> Bucket:
    """The store's S3 server, as this machine reaches it."""
    return Bucket.connect(kube, system)


@pytest.fixture(scope="session")
def swordfish(taught: Service, bucket: Bucket) -> Published:
    """The published adapter of the alias `medical`, with its files."""
    return Published.of(taught, bucket, "medical-1", "swordfish")


@pytest.fixture(scope="session")
def periwinkle(taught: Service, bucket: Bucket) -> Published:
    """A second published adapter with a word of its own."""
    done = taught.teach("periwinkle", alias="legal")
    return Published.of(taught, bucket, done["status"]["adapter"], "periwinkle")


@pytest.fixture
def aliases(taught: Service) -> Iterator[Service]:
    """The service, whose alias settings a test may change: afterwards there are none."""
    yield taught
    taught.set_aliases()


@pytest.fixture
def without_store(system: Kube) -> Iterator[None]:
    """The store's server away until the test's end, or until it calls `store_back`."""
    store_down(system)
    yield
    store_back(system)


@pytest.fixture(scope="session")
def plain_begun(kube: Kube, environment: Environment, taught: Service) -> None:
    """A plain Deployment of the same engine and model; its pods start while an idle operator is watched, which cannot be hurried."""
    kube.apply(*plain.objects(environment.images))


@pytest.fixture(scope="session")
def keyed_begun(kube: Kube, swordfish: Published) -> Keyring:
    """A second deployment, `keyed`, that asks its clients for keys; its pod starts while other files are tested."""
    ring = Keyring.fresh()
    kube.apply(
        ring.secret(),
        swordfish.under("locked", labels=KEYED_LABELS),
        deployment("keyed", service={"apiKeysSecret": SECRET}, adapters={"maxLoaded": 4, "selector": {"matchLabels": KEYED_LABELS}}),
    )
    return ring


@pytest.fixture(scope="session")
def unreferenced(taught: Service, system: Kube, bucket: Bucket) -> Iterator[Unreferenced]:
    """What belongs to nobody in the store of an operator that retains nothing; it is swept while other files are tested."""
    found = begin(taught, system, bucket)
    yield found
    end(system, bucket, found)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]  # pytest's own generator protocol
    """Write down what the cluster looked like when a test failed."""
    report = yield
    if report.when == "call" and report.failed:
        kube = item.funcargs.get("kube") if hasattr(item, "funcargs") else None
        if isinstance(kube, Kube):
            report.sections.append(("cluster", describe(kube)))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say at once why a test failed: the whole run takes minutes, and whoever watches it should not have to wait for its end."""
    if report.failed:
        print(f"\n{report.longreprtext}", flush=True)


def describe(kube: Kube) -> str:
    """Return what a person on call would look at first."""
    parts = [kube.run("get", "llmd,ftj,lora,pods,jobs", "-o", "wide")]
    for kind in ("llmdeployments", "finetunejobs", "loraadapters"):
        parts.append(kube.run("get", kind, "-o", "jsonpath={range .items[*]}{.metadata.name}{' '}{.status}{'\\n'}{end}"))
    parts.append(kube.run("get", "events", "--sort-by=.lastTimestamp")[-4000:])
    parts.append(kube.within(install.SYSTEM_NAMESPACE).logs(f"deploy/{install.RELEASE}", tail=60))
    return "\n".join(parts)


def repository() -> Path:
    """Return the root of the checkout."""
    return install.ROOT
