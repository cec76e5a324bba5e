"""An engine that hangs, fails, lies or dies never wedges the agent, and a bad adapter never delays a good one."""

from __future__ import annotations

import pytest
from graftwork_agent.engine import View
from graftwork_agent.state import State

from tests.unit.agent.pod import Pod, adapters_json, engine_name, entry
from tests.unit.agent.stub_engine import StubEngine

RANK = "Call to add_lora method failed: Worker failed with error 'LoRA rank 32 is greater than max_lora_rank 16.', please check the stack trace"
DORA = "Call to add_lora method failed: Worker failed with error 'vLLM does not yet support DoRA.', please check the stack trace"


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        ((500, RANK), "Refused", "RankTooHigh"),
        ((500, DORA), "Refused", "Unsupported"),
        ((500, "Call to add_lora method failed: Worker failed with error 'base_model.x is unsupported LoRA weight'"), "Refused", "Unsupported"),
        (
            (500, "Call to add_lora method failed: Worker failed with error \"Missing required configuration fields: {'r'}\""),
            "Refused",
            "ConfigInvalid",
        ),
        ((500, "Call to add_lora method failed: Worker failed with error ''"), "Failed", "LoadFailed"),
        ((500, "Internal Server Error"), "Failed", "LoadFailed"),
        ((500, "LoRA is not enabled. Use --enable-lora"), "Failed", "LoadFailed"),
        ((404, "Loading lora x failed: No adapter found for <path>"), "Failed", "LoadFailed"),
        ((400, "Field required"), "Failed", "LoadFailed"),
        ((503, "Server shutting down"), "Failed", "LoadFailed"),
    ],
)
async def test_an_error_of_the_engine_is_quoted_with_its_reason(
    pod: Pod, engine: StubEngine, answer: tuple[int, str], state: str, reason: str
) -> None:
    published = pod.publish("medical")
    name = engine_name(published)
    engine.faults.errors[name] = answer
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(name) == state)
        row = seen.adapter(name)
        assert row["reason"] == reason
        assert answer[1] in row["message"]
        assert str(answer[0]) in row["message"]
        if state == "Failed":  # and it is tried again
            engine.faults.errors.clear()
            await seen.until(lambda: seen.state(name) == "Loaded")
            assert (seen.adapter(name)["reason"], seen.adapter(name)["message"]) == ("", "")


async def test_a_refused_adapter_is_not_sent_again_to_the_same_engine_and_its_files_go(pod: Pod, engine: StubEngine) -> None:
    bad, good = pod.publish("medical"), pod.publish("legal", seed=2)
    engine.faults.errors[engine_name(bad)] = (500, RANK)
    pod.desire(adapters_json([entry(bad), entry(good)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(engine_name(good)) == "Loaded" and seen.state(engine_name(bad)) == "Refused")
        await engine.until(lambda: pod.on_disk() == [engine_name(good)])
    assert engine.count("load", engine_name(bad)) == 1


async def test_a_load_that_hangs_delays_the_others_by_no_more_than_its_timeout_and_never_the_status(pod: Pod, engine: StubEngine) -> None:
    bad, good = pod.publish("aaa"), pod.publish("zzz", seed=2)
    engine.faults.hang.add(engine_name(bad))
    pod.desire(adapters_json([entry(bad, required=True), entry(good)]))
    async with pod.serve(load_seconds=0.5) as seen:
        await engine.until(lambda: engine.count("load", engine_name(bad)))
        late = pod.publish("late", seed=3)
        found = pod.desire(adapters_json([entry(bad, required=True), entry(good), entry(late)]))
        await seen.until(lambda: seen.status["observedHash"] == found, 0.4)
        await seen.until(lambda: seen.state(engine_name(late)) == "Loaded" and seen.state(engine_name(good)) == "Loaded")
        assert seen.state(engine_name(bad)) == "Failed"
        assert "no answer within 0.5 s" in seen.adapter(engine_name(bad))["message"]


async def test_a_load_that_hangs_does_not_hold_up_routing(pod: Pod, engine: StubEngine) -> None:
    good, bad = pod.publish("aaa"), pod.publish("zzz", seed=2)
    engine.faults.hang.add(engine_name(bad))
    pod.desire(adapters_json([entry(good)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("routes"))
        pod.desire(adapters_json([entry(good), entry(bad)]))
        await engine.until(lambda: engine.count("load", engine_name(bad)))
        pod.desire(adapters_json([entry(bad)], {"aaa": [engine_name(bad)]}))
        await seen.until(lambda: seen.status["routes"] == {})
    assert engine.routing is not None
    assert engine.routing["unavailable"]["aaa"]["reason"] == "AdapterLoading"


async def test_an_engine_that_says_loaded_and_does_not_list_it_is_not_believed(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    name = engine_name(published)
    engine.faults.lies.add(name)
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(name) == "Failed")
        assert "does not list it" in seen.adapter(name)["message"]
        engine.faults.lies.clear()
        await seen.until(lambda: seen.state(name) == "Loaded")


async def test_an_adapter_that_is_loaded_already_is_not_an_error(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    name = engine_name(published)
    pod.desire(adapters_json([entry(published)]))
    engine.faults.errors[name] = (400, f"The lora adapter '{name}' has already been loaded. If you want to load")
    async with pod.serve() as seen:
        await engine.until(lambda: engine.count("load", name))
        engine.loaded.append(name)
        await seen.until(lambda: seen.state(name) == "Loaded")
        assert "already been loaded" not in seen.adapter(name).get("message", "")


@pytest.mark.parametrize("fault", ["breaks", "dies"])
async def test_an_adapter_that_ends_the_engine_comes_last_and_after_three_times_not_at_all(
    pod: Pod, engine: StubEngine, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The connection breaks; or vLLM's server answers 500 when its core has died, also the loads that come next, and ends some seconds later."""
    monkeypatch.setattr("graftwork_agent.backoff.FIRST_SECONDS", 0.05)
    bad, good = pod.publish("aaa"), pod.publish("zzz", seed=2)
    getattr(engine.faults, fault).add(engine_name(bad))
    pod.desire(adapters_json([entry(bad), entry(good)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(engine_name(bad)) == "Refused" and seen.state(engine_name(good)) == "Loaded", 20)
        assert "ended 3 times" in seen.adapter(engine_name(bad))["message"]
    if fault == "breaks":  # a dying server may be asked again before it has ended
        assert engine.count("load", engine_name(bad)) == 3


def view(instance: str, *, draining: bool = False) -> View:
    return View(instance, "1", "", draining, True, {})


BAD, BYSTANDER = "aaa--aaaaaaaaaaaa", "zzz--bbbbbbbbbbbb"


def test_the_first_load_that_failed_oddly_is_blamed_and_not_the_next_one(pod: Pod) -> None:
    state = State(pod.settings())
    state.saw_engine(view("one"))
    state.load_failed_oddly(BAD)
    state.saw_engine(view("one"))  # its server answers for some seconds
    state.load_failed_oddly(BYSTANDER)
    state.broke = BYSTANDER
    state.lost_engine()
    state.saw_engine(view("two"))
    assert state.crashes == {BAD: 1}
    state.saw_engine(view("three"))
    assert state.crashes == {BAD: 1}


@pytest.mark.parametrize("case", ["long ago", "draining", "never lost"])
def test_a_load_that_failed_oddly_is_not_blamed_for_an_end_of_another_cause(pod: Pod, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(pod.settings())
    state.saw_engine(view("one"))
    state.load_failed_oddly(BAD)
    if case == "long ago":
        monkeypatch.setattr("graftwork_agent.state.DYING_SECONDS", -1.0)
    if case == "draining":
        state.saw_engine(view("one", draining=True))
    if case != "never lost":
        state.lost_engine()
        state.saw_engine(view("two"))
    assert state.crashes == {}


async def test_models_that_cannot_be_listed_are_asked_for_again(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    engine.faults.models_status = 500
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.status.get("observedHash") and pod.on_disk())
        assert engine.log == []
        engine.faults.models_status = 200
        await seen.until(lambda: seen.state(engine_name(published)) == "Loaded")


async def test_a_guard_that_does_not_take_the_routing_is_asked_again(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    engine.faults.routing_status = 500
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(engine_name(published)) == "Loaded")
        assert seen.status["routes"] == {}
        engine.faults.routing_status = 200
        await seen.until(lambda: seen.status["routes"] == {"medical": engine_name(published)})


async def test_an_engine_that_is_not_there_yet_is_waited_for(pod: Pod, engine: StubEngine) -> None:
    published = pod.publish("medical")
    await engine.stop()
    pod.desire(adapters_json([entry(published)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(engine_name(published)) == "Pending" and pod.on_disk() == [engine_name(published)])
        assert seen.status["engine"]["state"] == "Starting"
        await engine.start()
        await seen.until(lambda: seen.state(engine_name(published)) == "Loaded")


async def test_an_engine_without_the_pods_token_is_reported_as_starting(pod: Pod, engine: StubEngine) -> None:
    (pod.root / "run" / "token").write_text("f" * 64)
    pod.desire(adapters_json([]))
    async with pod.serve() as seen:
        await engine.until(lambda: len(engine.bad) >= 2)
        assert seen.status["engine"]["state"] == "Starting"
    engine.bad.clear()


async def test_a_bad_adapter_in_the_store_does_not_delay_a_good_one(pod: Pod, engine: StubEngine) -> None:
    bad, good = pod.publish("aaa"), pod.publish("zzz", seed=2)
    missing = entry(bad, required=True)
    path = pod.root.parent / "store" / "adapters" / "ml" / "aaa"
    path.rename(pod.root.parent / "away")
    pod.desire(adapters_json([missing, entry(good)]))
    async with pod.serve() as seen:
        await seen.until(lambda: seen.state(engine_name(good)) == "Loaded", 2)
        assert seen.state(engine_name(bad)) == "Failed"
    assert engine.count("load", engine_name(bad)) == 0
