"""Fixtures: one API server for the session, with the CRDs of this checkout; a namespace of its own for each test that asks for one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.control_plane.api_server import ApiServer, prepare
from tests.control_plane.objects import Objects

ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def bare_api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real API server without anything of Graftwork."""
    server = prepare(tmp_path_factory.mktemp("api-server"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def api_server(bare_api_server: ApiServer) -> ApiServer:
    """The API server with the three CRDs established."""
    for arguments in (["apply", "--server-side", "-f", str(ROOT / "crds")], ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]):
        done = bare_api_server.run("kubectl", *arguments)
        assert done.returncode == 0, done.stderr
    return bare_api_server


@pytest.fixture(scope="session")
def admin(api_server: ApiServer) -> Iterator[httpx.Client]:
    """An HTTP client with all rights."""
    with api_server.client() as client:
        yield client


@pytest.fixture
def namespace(admin: httpx.Client) -> str:
    """The name of a new namespace."""
    name = f"test-{next(_numbers)}"
    admin.post("/api/v1/namespaces", json={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).raise_for_status()
    return name


@pytest.fixture
def objects(admin: httpx.Client, namespace: str) -> Objects:
    """Create, change and read objects of the three kinds in a new namespace."""
    return Objects(admin, namespace)
