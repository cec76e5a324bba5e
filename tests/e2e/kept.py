"""Clients that keep their connections under a small, steady load: the official openai client and httpx, as people use them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import httpx
from openai import AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.service import QUESTION
from tests.harness import ask
from tests.harness.kube import Object

CONNECTIONS = 12
"""Of each library. A Service gives a new connection to one of two pods by chance: all of a library's find the same one once in 2,000 times."""
REACHED_SECONDS = 90
"""From the last pod's readiness: the operator's write, 10 s in which every node learns of the pod, a pause between two requests; busy cores."""
PAUSE_SECONDS = 2.0  # the engine ends a connection that has been idle for 5 s


class Kept:
    """Each client has one connection and asks, one question after the other, until the end; the openai clients ask one model, httpx another."""

    def __init__(self, host: str, port: int, official_model: str, plain_model: str) -> None:
        self._url = f"http://{host}:{port}"
        self._official_model, self._plain_model = official_model, plain_model
        self.answered = 0
        self.failures: list[str] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._begun = threading.Event()

    def __enter__(self) -> Kept:
        self._thread.start()
        assert self._begun.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End after the requests that run; once is enough."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(90)
            assert not self._thread.is_alive()

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._begun.set()
        await asyncio.gather(*(self._official() for _ in range(CONNECTIONS)), *(self._plain() for _ in range(CONNECTIONS)))

    async def _official(self) -> None:
        async with AsyncOpenAI(base_url=f"{self._url}/v1", api_key="none", max_retries=0, timeout=60) as client:

            async def ask() -> object:
                return await client.chat.completions.create(
                    model=self._official_model, messages=[{"role": "user", "content": QUESTION}], max_tokens=1, temperature=0
                )

            await self._keep_asking(ask)

    async def _plain(self) -> None:
        body = {"model": self._plain_model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 1, "temperature": 0}
        async with httpx.AsyncClient(base_url=self._url, timeout=60) as client:

            async def ask() -> object:
                return (await client.post("/v1/chat/completions", json=body)).raise_for_status()

            await self._keep_asking(ask)

    async def _keep_asking(self, ask: Callable[[], Awaitable[object]]) -> None:
        while not self._over.is_set():
            try:
                await ask()
                self.answered += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, a request was lost
                self.failures.append(f"{type(error).__name__}: {error}")
            try:
                async with asyncio.timeout(PAUSE_SECONDS):
                    await self._over.wait()
            except TimeoutError:
                continue


def asked(pod: Object, models: Sequence[str]) -> dict[str, float]:
    """Return how many requests a pod's own guard has counted of these models."""
    _, text = ask.get(pod["status"]["podIP"], 8000, "/graftwork/metrics")
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples if sample.name == "graftwork_requests_total"]
    return {model: sum(sample.value for sample in samples if sample.labels["alias"] == model) for model in models}


def until_asked(pods: Sequence[Object], models: Sequence[str], before: dict[str, dict[str, float]] | None = None) -> dict[str, dict[str, float]]:
    """Return each pod's counts as soon as every pod was asked each model since `before`; of one library's clients each model is asked by."""
    known = before or {pod["metadata"]["name"]: dict.fromkeys(models, 0.0) for pod in pods}
    deadline = time.monotonic() + REACHED_SECONDS
    while True:
        now = {pod["metadata"]["name"]: asked(pod, models) for pod in pods}
        if all(now[name][model] > known[name][model] for name in now for model in models):
            return now
        assert time.monotonic() < deadline, f"after {REACHED_SECONDS} s not every library has reached every pod: {known} -> {now}"
        threading.Event().wait(0.5)
