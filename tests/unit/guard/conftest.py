"""One guard around one fake engine per test; `world` has its routing, `cold` has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.guard.fakes import World


@pytest.fixture
def cold(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
async def world(cold: World) -> World:
    await cold.route()
    return cold
