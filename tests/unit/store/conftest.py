from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from graftwork_store.store import Store

from tests.unit.store.gateway import running_gateway


@pytest.fixture(scope="session")
def s3_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as env:
        yield env


@pytest.fixture
def file_env(tmp_path: Path) -> dict[str, str]:
    return {"GRAFTWORK_STORE_URL": f"file://{tmp_path / 'store'}"}


@pytest.fixture(params=["file", "s3"])
def store_env(request: pytest.FixtureRequest) -> dict[str, str]:
    env: dict[str, str] = dict(request.getfixturevalue("s3_env" if request.param == "s3" else "file_env"))
    if request.param == "s3":  # each test has a prefix of its own in the one server
        env["GRAFTWORK_STORE_URL"] += f"/{abs(hash(request.node.nodeid)):x}"
    return env


@pytest.fixture
def store(store_env: dict[str, str]) -> Store:
    return Store.from_env(store_env)
