from __future__ import annotations

import asyncio

import aiohttp
from graftwork.clock import SystemClock
from graftwork.health import STALL_SECONDS, Health

from tests.unit.runtime.fakes import FakeClock, settle


async def test_a_failed_check_is_named_with_503() -> None:
    health = Health(SystemClock())
    problem = [""]
    health.add_live("lease", lambda: problem[0])
    health.add_ready("mirror", lambda: "not complete")
    port = await health.serve(0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/healthz") as answer:
                assert (answer.status, await answer.json()) == (200, {"ok": True, "problems": {}})
            async with session.get("/readyz") as answer:
                assert (answer.status, (await answer.json())["problems"]) == (503, {"mirror": "not complete"})
            problem[0] = "expired"
            async with session.get("/healthz") as answer:
                assert (answer.status, (await answer.json())["problems"]) == (503, {"lease": "expired"})
            async with session.get("/metrics") as answer:
                assert "graftwork_lease_held" in await answer.text()
    finally:
        await health.close()


async def test_an_event_loop_without_ticks_is_not_healthy() -> None:
    clock = FakeClock()
    health = Health(clock)
    task = asyncio.create_task(health.tick())
    await clock.advance(60)
    assert health.problems() == {}
    task.cancel()
    await settle()
    await clock.advance(STALL_SECONDS + 1)
    assert "event loop" in health.problems()
