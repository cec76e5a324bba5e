from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from graftwork_store.store import Store

from tests.hub.running import Running
from tests.hub.server import Hub
from tests.unit.agent.pod import Pod
from tests.unit.agent.stub_engine import StubEngine


@pytest.fixture
def env(hub: Hub) -> Iterator[dict[str, str]]:
    """The environment in which the test module's own `hub` is the Hugging Face hub; its files lie on another host name, as the real one's do."""
    with Running(hub.app) as running:
        hub.files_url = f"http://localhost:{running.port}"
        yield {"HF_ENDPOINT": running.url}


@pytest.fixture
async def engine() -> AsyncIterator[StubEngine]:
    """A running engine; at the end, whatever it was sent that breaks the contract fails the test."""
    stub = StubEngine()
    await stub.start()
    yield stub
    await stub.stop()
    assert stub.bad == []


@pytest.fixture
def pod(tmp_path: Path, engine: StubEngine) -> Pod:
    store = Store.from_env({"GRAFTWORK_STORE_URL": f"file://{tmp_path / 'store'}"})
    return Pod.make(tmp_path / "pod", store, engine)


@pytest.fixture
async def aiohttp_app() -> AsyncIterator[Callable[[web.Application], Any]]:
    """Serve an application; gives a function that GETs a path and returns status and text."""
    runners: list[web.AppRunner] = []
    async with aiohttp.ClientSession() as session:

        async def serve(app: web.Application) -> Callable[[str], Any]:
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            runners.append(runner)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]

            async def get(path: str) -> tuple[int, str]:
                async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                    return answer.status, await answer.text()

            return get

        yield serve
    for runner in runners:
        await runner.cleanup()
