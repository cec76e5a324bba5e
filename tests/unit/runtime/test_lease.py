from __future__ import annotations

import asyncio
from typing import Any

import pytest
from graftwork.cluster.kinds import Key
from graftwork.cluster.lease import Lease, identity
from graftwork.config import LeaseConfig
from graftwork.errors import LeaseLost, Unavailable

from tests.unit.runtime.fakes import FakeClock, FakeCluster, settle

CONFIG = LeaseConfig(namespace="graftwork")
KEY = Key("Lease", "graftwork", CONFIG.name)


class Bench:
    def __init__(self) -> None:
        self.cluster, self.clock = FakeCluster(), FakeClock()

    def lease(self, holder: str = "a") -> Lease:
        return Lease(self.cluster, self.clock, CONFIG, holder)

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.cluster.objects[KEY]["spec"]
        return spec


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_free_lease_is_taken_at_once(bench: Bench) -> None:
    lease = bench.lease()
    await lease.acquire()
    assert lease.held
    assert (bench.spec["holderIdentity"], bench.spec["leaseDurationSeconds"], bench.spec["leaseTransitions"]) == ("a", 15, 0)


async def test_a_second_process_waits_until_the_first_is_silent_for_the_whole_duration(bench: Bench) -> None:
    first, second = bench.lease("a"), bench.lease("b")
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    waiting = asyncio.create_task(second.acquire())
    await bench.clock.advance(120)
    assert not waiting.done()
    keeping.cancel()
    await bench.clock.advance(14)
    assert not second.held
    await bench.clock.advance(8)
    assert second.held
    assert bench.spec["holderIdentity"] == "b"
    assert bench.spec["leaseTransitions"] == 1


async def test_the_first_has_stopped_before_the_second_can_start(bench: Bench) -> None:
    first, second = bench.lease("a"), bench.lease("b")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await settle()
    while first.held:
        assert not second.held
        await bench.clock.advance(0.1)
    assert not second.held
    await bench.clock.advance(20)
    assert waiting.done()


async def test_an_api_server_that_does_not_answer_costs_the_lease_before_it_expires(bench: Bench) -> None:
    lease = bench.lease()
    await lease.acquire()
    started = bench.clock.seconds
    keeping = asyncio.create_task(lease.keep())
    await bench.clock.advance(0.1)
    bench.cluster.fail = lambda verb, kind: Unavailable("no answer")
    while not keeping.done():
        await bench.clock.advance(0.5)
    with pytest.raises(LeaseLost, match="could not be renewed in time: no answer"):
        keeping.result()
    assert bench.clock.seconds - started < CONFIG.duration_seconds


async def test_a_short_outage_costs_nothing(bench: Bench) -> None:
    lease = bench.lease()
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    bench.cluster.fail = lambda verb, kind: Unavailable("no answer")
    await bench.clock.advance(9)
    bench.cluster.fail = lambda verb, kind: None
    await bench.clock.advance(60)
    assert lease.held
    keeping.cancel()


async def test_a_lease_that_another_took_is_lost(bench: Bench) -> None:
    lease = bench.lease()
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    await settle()
    await bench.cluster.merge("Lease", "graftwork", CONFIG.name, {"spec": {"holderIdentity": "b"}})
    await bench.clock.advance(5.1)
    with pytest.raises(LeaseLost, match="was taken by b"):
        await keeping


async def test_somebody_elses_annotation_on_our_lease_is_no_loss(bench: Bench) -> None:
    lease = bench.lease()
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    await settle()
    await bench.cluster.merge("Lease", "graftwork", CONFIG.name, {"metadata": {"annotations": {"x": "y"}}})
    await bench.clock.advance(30)
    assert lease.held
    keeping.cancel()


async def test_a_process_that_was_held_up_does_not_renew_what_it_has_lost(bench: Bench) -> None:
    lease = bench.lease()
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    await settle()
    bench.clock.seconds += 60
    await bench.clock.advance(0)
    with pytest.raises(LeaseLost, match="held up"):
        await keeping
    assert not lease.held


async def test_a_released_lease_is_taken_at_once(bench: Bench) -> None:
    first, second = bench.lease("a"), bench.lease("b")
    await first.acquire()
    await first.release()
    assert not first.held
    await second.acquire()
    assert second.held


async def test_a_restarted_container_of_the_same_pod_need_not_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "operator-1")
    monkeypatch.setenv("POD_UID", "1234")
    await bench.lease(identity()).acquire()
    again = bench.lease(identity())
    await again.acquire()
    assert again.held
    assert bench.spec["leaseTransitions"] == 0


def test_without_a_pod_every_process_is_another_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POD_UID", raising=False)
    assert identity() != identity()


async def test_waiting_for_the_api_server_is_told_apart_from_waiting_for_the_holder(bench: Bench) -> None:
    lease = bench.lease("b")
    bench.cluster.fail = lambda verb, kind: Unavailable("no answer")
    waiting = asyncio.create_task(lease.acquire())
    await settle()
    assert lease.waiting_for_api
    bench.cluster.fail = lambda verb, kind: None
    await bench.lease("a").acquire()
    await bench.clock.advance(2.1)
    assert not lease.waiting_for_api
    waiting.cancel()
