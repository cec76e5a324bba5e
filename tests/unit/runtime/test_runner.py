from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from graftwork.cluster.kinds import Key
from graftwork.errors import Conflict, Unavailable
from graftwork.reasons import Reason
from graftwork.reconcile.backoff import Backoff
from graftwork.reconcile.context import Context, Result
from graftwork.reconcile.runner import Runner

from tests.unit.runtime.fakes import new_context, obj_of, settle

ONE, TWO = Key("LLMDeployment", "ml", "one"), Key("LLMDeployment", "ml", "two")


class Script:
    """A reconciler whose passes do what the test says; without more to do they return Result()."""

    def __init__(self) -> None:
        self.passes: list[Key] = []
        self.then: list[Callable[[Key, Context], Awaitable[Result]]] = []

    async def reconcile(self, key: Key, ctx: Context) -> Result:
        self.passes.append(key)
        return await self.then.pop(0)(key, ctx) if self.then else Result()

    def next(self, *results: Result | Exception) -> None:
        def step(result: Result | Exception) -> Callable[[Key, Context], Awaitable[Result]]:
            async def run(key: Key, ctx: Context) -> Result:
                if isinstance(result, Exception):
                    raise result
                return result

            return run

        self.then += [step(result) for result in results]

    def hold(self) -> tuple[asyncio.Event, asyncio.Event]:
        """Make the next pass wait; return the events "it began" and "let it end"."""
        began, end = asyncio.Event(), asyncio.Event()

        async def run(key: Key, ctx: Context) -> Result:
            began.set()
            await end.wait()
            return Result()

        self.then.append(run)
        return began, end


@pytest.fixture
async def bench() -> Any:
    ctx, script = new_context(), Script()
    runner = Runner({"LLMDeployment": script}, ctx, seed=1)
    yield ctx, script, runner
    await runner.stop(0)


async def test_many_wakes_before_a_pass_are_one_pass(bench: Any) -> None:
    _, script, runner = bench
    for _ in range(5):
        runner.wake(ONE)
    await settle()
    assert script.passes == [ONE]


@pytest.mark.parametrize("wakes", [1, 7])
async def test_wakes_during_a_pass_are_exactly_one_more(bench: Any, wakes: int) -> None:
    _, script, runner = bench
    began, end = script.hold()
    runner.wake(ONE)
    await began.wait()
    for _ in range(wakes):
        runner.wake(ONE)
    await settle()
    assert len(script.passes) == 1
    end.set()
    await settle()
    assert len(script.passes) == 2


async def test_a_pass_that_hangs_holds_up_no_other_resource(bench: Any) -> None:
    _, script, runner = bench
    began, end = script.hold()
    runner.wake(ONE)
    await began.wait()
    runner.wake(TWO)
    await settle()
    assert script.passes == [ONE, TWO]
    end.set()


async def test_a_deadline_brings_a_pass_at_its_time(bench: Any) -> None:
    ctx, script, runner = bench
    script.next(Result(requeue_after_seconds=12.5))
    runner.wake(ONE)
    await ctx.clock.advance(12.4)
    assert len(script.passes) == 1
    await ctx.clock.advance(0.2)
    assert len(script.passes) == 2


async def test_the_earliest_of_two_wishes_counts(bench: Any) -> None:
    ctx, script, runner = bench
    runner.wake(ONE, 30)
    runner.wake(ONE, 5)
    runner.wake(ONE, 60)
    await ctx.clock.advance(5.1)
    assert len(script.passes) == 1
    await ctx.clock.advance(100)
    assert len(script.passes) == 1


async def test_the_slow_resync_comes_within_its_jitter(bench: Any) -> None:
    ctx, script, runner = bench
    runner.wake(ONE)
    await ctx.clock.advance(539)
    assert len(script.passes) == 1
    await ctx.clock.advance(122)
    assert len(script.passes) == 2


async def test_failures_back_off_up_to_a_minute_and_are_told_once(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    ctx, script, runner = bench
    ctx.mirror.put(obj_of("LLMDeployment"))
    script.next(*[ValueError("cannot do it")] * 10)
    runner.wake(ONE)
    times = []
    for _ in range(3000):
        before = len(script.passes)
        await ctx.clock.advance(0.1)
        times += [ctx.clock.seconds] * (len(script.passes) - before)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(0.4 <= gap <= 1.2 for gap in gaps[:1])
    assert all(later >= earlier * 0.9 for earlier, later in itertools.pairwise(gaps[:6]))
    assert max(gaps) <= 60.2
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "LLMDeployment ml/one: ValueError: cannot do it (tried again with backoff)"
    ]
    assert ctx.events.recorded == [("LLMDeployment/one", Reason.RECONCILE_FAILED, "ValueError: cannot do it")]


async def test_another_error_is_told_again_and_success_resets_the_backoff(bench: Any) -> None:
    ctx, script, runner = bench
    ctx.mirror.put(obj_of("LLMDeployment"))
    script.next(ValueError("a"), ValueError("a"), ValueError("b"), Result(), ValueError("b"), Result())
    runner.wake(ONE)
    await ctx.clock.advance(20)
    assert len(script.passes) == 4
    runner.wake(ONE)
    await ctx.clock.advance(1.1)
    assert len(script.passes) == 6, "the backoff began anew at a second"
    assert [message for _, _, message in ctx.events.recorded] == ["ValueError: a", "ValueError: b", "ValueError: b"]


async def test_one_resource_fails_and_another_goes_on(bench: Any) -> None:
    _, script, runner = bench
    script.next(ValueError("bad"))
    runner.wake(ONE)
    await settle()
    runner.wake(TWO)
    await settle()
    assert script.passes == [ONE, TWO]


async def test_a_wake_shortens_a_long_backoff_but_a_flapping_child_does_not_undo_it(bench: Any) -> None:
    ctx, script, runner = bench
    script.next(*[ValueError("bad")] * 7)
    runner.wake(ONE)
    while len(script.passes) < 7:
        await ctx.clock.advance(0.5)
    for _ in range(10):
        runner.wake(ONE)
        await ctx.clock.advance(0.05)
    assert len(script.passes) == 7
    await ctx.clock.advance(0.6)
    assert len(script.passes) == 8


async def test_a_conflict_is_tried_again_at_once_and_without_noise(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    ctx, script, runner = bench
    ctx.mirror.put(obj_of("LLMDeployment"))
    script.next(Conflict("changed"))
    runner.wake(ONE)
    await ctx.clock.advance(0.1)
    assert len(script.passes) == 2
    assert ctx.events.recorded == []
    assert not [record for record in caplog.records if record.levelno >= 30]


async def test_an_api_server_that_does_not_answer_makes_no_event(bench: Any) -> None:
    ctx, script, runner = bench
    ctx.mirror.put(obj_of("LLMDeployment"))
    script.next(Unavailable("no answer"))
    runner.wake(ONE)
    await settle()
    assert ctx.events.recorded == []


async def test_a_pass_without_end_is_cut_off_and_counts_as_failed(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, script, runner = bench
    monkeypatch.setattr("graftwork.reconcile.runner.PASS_SECONDS", 0.01)
    ctx.mirror.put(obj_of("LLMDeployment"))
    told = asyncio.Event()
    monkeypatch.setattr(ctx.events, "record", lambda obj, reason, message, warning: told.set() if "did not end" in message else None)
    script.hold()
    runner.wake(ONE)
    await asyncio.wait_for(told.wait(), 5)


async def test_the_task_ends_when_the_resource_is_gone_and_its_pods_are_not_watched_any_more(bench: Any) -> None:
    ctx, script, runner = bench
    script.next(Result(gone=True))
    runner.wake(ONE)
    await settle()
    assert ctx.agents.watched[ONE] == []
    assert ctx.trainers.watched[ONE] == []
    await ctx.clock.advance(2000)
    assert len(script.passes) == 1
    runner.wake(ONE)
    await settle()
    assert len(script.passes) == 2, "a resource of the same name begins anew"


async def test_a_wake_during_the_last_pass_is_not_lost(bench: Any) -> None:
    _, script, runner = bench

    async def last(key: Key, ctx: Context) -> Result:
        ctx.wake(key)
        return Result(gone=True)

    script.then.append(last)
    runner.wake(ONE)
    await settle()
    assert len(script.passes) == 2


async def test_stop_waits_for_running_passes_and_begins_none() -> None:
    ctx, script = new_context(), Script()
    runner = Runner({"LLMDeployment": script}, ctx)
    began, end = script.hold()
    runner.wake(ONE)
    await began.wait()
    stopping = asyncio.create_task(runner.stop(10))
    await settle()
    runner.wake(TWO)
    runner.wake(ONE)
    await settle()
    assert not stopping.done()
    end.set()
    await stopping
    assert script.passes == [ONE]


async def test_the_longest_pass_is_known_while_it_runs(bench: Any) -> None:
    ctx, script, runner = bench
    began, end = script.hold()
    runner.wake(ONE)
    await began.wait()
    await ctx.clock.advance(42)
    assert runner.longest_pass_seconds() == pytest.approx(42)
    end.set()
    await settle()
    assert runner.longest_pass_seconds() == 0


def test_backoff_doubles_from_its_first_delay_to_its_most() -> None:
    backoff = Backoff(first=1, most=60)
    delays = [backoff.next_delay() for _ in range(12)]
    assert all(0.5 * min(60, 2**n) <= delay <= min(60, 2**n) for n, delay in enumerate(delays))
    backoff.reset()
    assert backoff.next_delay() <= 1
