from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from graftwork.cluster.kinds import KINDS, WATCHED
from graftwork.cluster.mirror import Mirror
from graftwork.errors import ApiError, NotFound, Unavailable
from graftwork.handlers.audit import Audit

from tests.unit.runtime.fakes import FakeClock, obj_of, settle


class Listings:
    """An API server that only lists: what a kind has, as of a version; `fail` has errors by kind."""

    def __init__(self) -> None:
        self.items: dict[str, list[dict[str, Any]]] = {kind.name: [] for kind in WATCHED}
        self.fail: dict[str, ApiError] = {}
        self.asked: list[tuple[str, str | None, str]] = []
        self.version = 100

    async def listing(self, kind: str, namespace: str | None, selector: str) -> tuple[list[dict[str, Any]], str]:
        self.asked.append((kind, namespace, selector))
        if kind in self.fail:
            raise self.fail[kind]
        return [obj for obj in self.items[kind] if namespace in (None, obj["metadata"]["namespace"])], str(self.version)


class Bench:
    def __init__(self, *namespaces: str) -> None:
        self.api, self.mirror, self.clock = Listings(), Mirror(), FakeClock()
        self.audit = Audit(self.api, self.mirror, self.clock, namespaces, 600)  # type: ignore[arg-type]


async def test_nothing_is_synced_before_every_kind_has_been_listed(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.api.fail["Pod"] = Unavailable("no answer")
    bench.api.items["LLMDeployment"] = [obj_of("LLMDeployment")]
    filling = asyncio.create_task(bench.audit.fill())
    await bench.clock.advance(300)
    assert not bench.mirror.synced.is_set()
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    bench.api.fail.clear()
    await bench.clock.advance(15)
    assert filling.done()
    assert bench.mirror.synced.is_set()
    assert bench.mirror.get("LLMDeployment", "ml", "one")


async def test_missing_crds_are_told_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.api.fail["LLMDeployment"] = NotFound("no such kind")
    filling = asyncio.create_task(bench.audit.fill())
    await settle()
    assert "Are the CRDs installed (chart graftwork-crds)?" in caplog.text
    filling.cancel()


async def test_our_kinds_are_listed_whole_and_children_by_our_label_in_each_namespace() -> None:
    bench = Bench("a", "b")
    await bench.audit.fill()
    assert ("LoRAAdapter", "a", "") in bench.api.asked
    assert ("Pod", "b", "app.kubernetes.io/managed-by=graftwork") in bench.api.asked
    assert len(bench.api.asked) == 2 * len(WATCHED)
    assert not {kind for kind, _, _ in bench.api.asked} - {kind for kind in KINDS if KINDS[kind].watched}


async def test_a_deletion_that_no_watch_told_is_found_soon_after_a_relisting() -> None:
    bench = Bench()
    bench.api.items["LoRAAdapter"] = [obj_of("LoRAAdapter", resourceVersion="50")]
    await bench.audit.fill()
    running = asyncio.create_task(bench.audit.run())
    await bench.clock.advance(60)
    bench.api.items["LoRAAdapter"] = []
    bench.api.version = 200
    bench.audit.relisted("LoRAAdapter")
    await bench.clock.advance(1.1)
    assert bench.mirror.get("LoRAAdapter", "ml", "one") is None
    running.cancel()


async def test_a_kind_whose_last_object_went_while_no_watch_ran_is_audited_with_the_others() -> None:
    bench = Bench()
    bench.api.items["LLMDeployment"] = [obj_of("LLMDeployment", resourceVersion="50")]
    await bench.audit.fill()
    running = asyncio.create_task(bench.audit.run())
    await bench.clock.advance(60)
    bench.api.items["LLMDeployment"] = []
    bench.api.version = 200
    bench.audit.relisted("Pod")  # an empty listing of the LLMDeployments is told by nobody
    await bench.clock.advance(1.1)
    assert bench.mirror.get("LLMDeployment", "ml", "one") is None
    running.cancel()


async def test_an_audit_that_failed_is_made_up_for_soon() -> None:
    bench = Bench()
    bench.api.items["Pod"] = [obj_of("Pod", resourceVersion="50")]
    await bench.audit.fill()
    running = asyncio.create_task(bench.audit.run())
    await bench.clock.advance(60)
    bench.api.items["Pod"] = []
    bench.api.version = 200
    bench.api.fail["Pod"] = Unavailable("no answer")
    bench.audit.relisted("Pod")
    await bench.clock.advance(25)
    assert bench.mirror.get("Pod", "ml", "one")
    bench.api.fail.clear()
    await bench.clock.advance(15)
    assert bench.mirror.get("Pod", "ml", "one") is None
    running.cancel()


async def test_everything_is_audited_shortly_after_the_start_and_in_every_period() -> None:
    bench = Bench()
    await bench.audit.fill()
    running = asyncio.create_task(bench.audit.run())
    for seconds in (6, 661, 661):
        bench.api.asked.clear()
        await bench.clock.advance(seconds)
        assert {kind for kind, _, _ in bench.api.asked} == {kind.name for kind in WATCHED}
    running.cancel()


async def test_an_audit_that_fails_is_no_end() -> None:
    bench = Bench()
    await bench.audit.fill()
    running = asyncio.create_task(bench.audit.run())
    bench.api.fail["Pod"] = Unavailable("no answer")
    await bench.clock.advance(700)
    assert not running.done()
    running.cancel()
