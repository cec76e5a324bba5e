"""The sidecar as a process of its own: environment, port, signals; and how fast an adapter of a real S3 store reaches the engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
from graftwork_store.store import Store

from tests.unit.agent.pod import STATUS_SCHEMA, Pod, adapters_json, engine_name, entry
from tests.unit.agent.stub_engine import StubEngine
from tests.unit.store.gateway import running_gateway

ROUNDS = 20
LIMIT_SECONDS = 0.15
RSS_LIMIT_BYTES = 96 << 20


@pytest.fixture(scope="module")
def s3_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as env:
        yield env


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Sidecar:
    """A running `serve` and a client for its port."""

    def __init__(self, process: asyncio.subprocess.Process, session: aiohttp.ClientSession, port: int) -> None:
        self.process = process
        self._session = session
        self._port = port

    async def get(self, path: str) -> dict[str, Any]:
        async with self._session.get(f"http://127.0.0.1:{self._port}{path}") as answer:
            body: dict[str, Any] = await answer.json()
            return body

    async def until(self, name: str, state: str) -> dict[str, Any]:
        """Follow the hanging GET until an adapter is in a state, as the operator does."""
        version = ""
        async with asyncio.timeout(20):
            while True:
                body = await self.get(f"/status?since={version}&wait=10")
                jsonschema.validate(body, STATUS_SCHEMA)
                version = body["version"]
                for row in body["adapters"]:
                    if (row["engineName"], row["state"]) == (name, state):
                        return dict(row)


@asynccontextmanager
async def sidecar(pod: Pod, env: dict[str, str]) -> AsyncIterator[Sidecar]:
    port = free_port()
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "GRAFTWORK_ROOT": str(pod.root), "GRAFTWORK_BASE_DIR": str(pod.root / "base")}
    environment |= {"GRAFTWORK_ENGINE_URL": pod.engine.url, "GRAFTWORK_AGENT_PORT": str(port), "POD_NAME": "support-abc", **env}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "graftwork_agent", "serve", env=environment)
    try:
        async with aiohttp.ClientSession() as session:
            running = Sidecar(process, session, port)
            async with asyncio.timeout(20):
                while True:
                    with contextlib.suppress(aiohttp.ClientConnectionError):
                        await running.get("/alive")
                        break
            yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def seconds_between(row: dict[str, Any], first: str, last: str) -> float:
    return (datetime.fromisoformat(row[last]) - datetime.fromisoformat(row[first])).total_seconds()


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its children: the supervisor and its agent; pages that they share count twice."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert children, "the supervisor has no agent"
    texts = [Path(f"/proc/{each}/status").read_text() for each in (pid, *children)]
    return sum(int(line.split()[1]) * 1024 for text in texts for line in text.splitlines() if line.startswith("VmRSS:"))


async def test_the_sidecar_answers_at_once_and_ends_at_once_when_asked(pod: Pod) -> None:
    await pod.engine.stop()
    pod.desire(adapters_json([]))
    async with sidecar(pod, {"GRAFTWORK_STORE_URL": f"file://{pod.root / 'store'}"}) as running:
        version = (await running.get("/status"))["version"]
        hanging = asyncio.create_task(running.get(f"/status?since={version}&wait=60"))
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await running.process.wait() == 0
        with contextlib.suppress(aiohttp.ClientError):
            await hanging


async def test_a_killed_sidecar_takes_up_where_it_was(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    pod.desire(adapters_json([entry(published, required=True)]))
    env = {"GRAFTWORK_STORE_URL": f"file://{pod.root.parent / 'store'}"}
    async with sidecar(pod, env) as running:
        await running.until(engine_name(published), "Loaded")
        running.process.kill()
    async with sidecar(pod, env) as running:
        await running.until(engine_name(published), "Loaded")
        assert engine.count("load", engine_name(published)) == 1
        assert engine.ready


async def test_an_adapter_of_an_s3_store_reaches_the_engine_in_time_and_memory_stays_small(
    tmp_path: Path, engine: StubEngine, s3_env: dict[str, str], record_property: Any
) -> None:
    pod = Pod.make(tmp_path / "pod", Store.from_env(s3_env), engine)
    published = [pod.publish(f"a{number}", seed=number) for number in range(ROUNDS)]
    pod.desire(adapters_json([]))
    samples = []
    async with sidecar(pod, s3_env) as running:
        await engine.until(lambda: engine.ready)
        for count in range(1, ROUNDS + 1):
            pod.desire(adapters_json([entry(item) for item in published[:count]]))
            row = await running.until(engine_name(published[count - 1]), "Loaded")
            samples.append(seconds_between(row, "seenAt", "loadSentAt"))
        resident = resident_bytes(running.process.pid)
    record_property("seen_to_load_sent", json.dumps(samples))
    record_property("resident_bytes", resident)
    print(f"seen to load sent: median {sorted(samples)[ROUNDS // 2]:.4f} s, worst {max(samples):.4f} s; resident {resident / 2**20:.1f} MiB")
    assert sorted(samples)[int(ROUNDS * 0.9)] <= LIMIT_SECONDS
    assert resident <= RSS_LIMIT_BYTES
