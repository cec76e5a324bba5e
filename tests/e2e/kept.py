"""Clients that keep their connections under a small, steady load: the official openai client and httpx, as people use them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import httpx
from openai import AsyncOpenAI

from tests.e2e.service import QUESTION

CONNECTIONS = 12
"""Of each library. A Service gives a new connection to one of two pods by chance: all of a library's find the same one once in 2,000 times."""
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
