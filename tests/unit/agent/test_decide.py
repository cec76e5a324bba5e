"""The decision core: a table of situations, and rules that hold in every situation."""

from __future__ import annotations

import math
from typing import Any

import pytest
from graftwork_agent.decide import (
    Decision,
    Delete,
    Engine,
    Fetch,
    Files,
    FileState,
    Load,
    LoadTrouble,
    Route,
    Snapshot,
    Unload,
    decide,
    key_of,
    routed_names,
)
from graftwork_agent.desired import Adapter, Candidate, Desired
from hypothesis import given
from hypothesis import strategies as st

BASE = "sha256:" + "b" * 64
A, B, OLD = "medical--aaaaaaaaaaaa", "legal--bbbbbbbbbbbb", "medical--000000000000"


def adapter(name: str, *, required: bool = False) -> Adapter:
    alias, short = name.split("--")
    return Adapter(f"{alias}-1", alias, 1, name, f"sha256:{short:0<64}", f"store://ml/{alias}/{short}", 8, "", required)


def desired(
    *adapters: Adapter, aliases: dict[str, tuple[str, ...]] | None = None, deadline: float = 100, candidates: dict[str, Candidate] | None = None
) -> Desired:
    if aliases is None:
        aliases = {item.alias: (item.engine_name,) for item in adapters}
    return Desired("support", 16, deadline, adapters, aliases, "0" * 64, candidates or {})


def files(item: Adapter, want: Desired, state: FileState = FileState.VERIFIED, **changes: Any) -> dict[str, Files]:
    return {item.engine_name: Files(state, key_of(item, want, BASE), **changes)}


def engine(*listed: str, routing: dict[str, str] | None = None, candidate: str = "", **changes: Any) -> Engine:
    body = None if routing is None else {"aliases": routing, "candidates": {"medical": {"engine": candidate, "weight": 0}} if candidate else {}}
    return Engine("i1", 0.0, listed=frozenset(listed), routing=body, **changes)


def snapshot(want: Desired | None, **changes: Any) -> Snapshot:
    values: dict[str, Any] = {"now": 10.0, "desired": want, "base_fingerprint": BASE, "files": {}, "on_disk": frozenset(), "engine": None}
    return Snapshot(**(values | changes))


def kinds(decision: Decision) -> list[tuple[str, str]]:
    """Return actions as (kind, engine name), without routes."""
    named = []
    for action in decision.actions:
        if isinstance(action, Fetch | Load):
            named.append((type(action).__name__, action.adapter.engine_name))
        elif isinstance(action, Unload | Delete):
            named.append((type(action).__name__, action.name))
    return named


def route(decision: Decision) -> dict[str, Any]:
    bodies = [action.body for action in decision.actions if isinstance(action, Route)]
    assert len(bodies) == 1
    return bodies[0]


a, b, old = adapter(A), adapter(B), adapter(OLD)
WANT_A, WANT_AB = desired(a), desired(a, b)
VERIFIED = files(a, WANT_AB) | files(b, WANT_AB)


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (snapshot(None, engine=engine(A)), []),
        (snapshot(WANT_A), [("Fetch", A)]),
        (snapshot(WANT_A, base_fingerprint=""), []),
        (snapshot(WANT_A, deleting=frozenset({A})), []),
        (snapshot(WANT_A, files=files(a, WANT_A, FileState.WORKING)), []),
        (snapshot(WANT_A, files=files(a, WANT_A, FileState.FAILED, retry_at=11.0)), []),
        (snapshot(WANT_A, files=files(a, WANT_A, FileState.FAILED, retry_at=10.0)), [("Fetch", A)]),
        (snapshot(WANT_A, files=files(a, WANT_A, FileState.REFUSED)), []),
        (snapshot(WANT_A, files={A: Files(FileState.REFUSED, ("another", "key"))}), [("Fetch", A)]),
        (snapshot(WANT_A, files=files(a, WANT_A)), []),
        (snapshot(WANT_A, files=files(a, WANT_A), engine=Engine("i1", 0.0)), []),
        (snapshot(WANT_A, files=files(a, WANT_A), engine=engine()), [("Load", A)]),
        (snapshot(WANT_A, files=files(a, WANT_A), engine=engine(draining=True)), []),
        (snapshot(WANT_A, files=files(a, WANT_A), engine=engine(), loading=B), []),
        (snapshot(WANT_A, files=files(a, WANT_A), engine=engine(), unloading=B), []),
        (snapshot(WANT_A, files=files(a, WANT_A), engine=engine(), on_disk=frozenset({A}), deleting=frozenset({A})), []),
        (snapshot(WANT_AB, files=VERIFIED, engine=engine(), deleting=frozenset({A})), [("Load", B)]),
        (snapshot(WANT_A, files=files(a, WANT_A), engine=engine(A)), []),
        (snapshot(WANT_AB, files=VERIFIED, engine=engine()), [("Load", A)]),
        (snapshot(WANT_AB, files=VERIFIED, engine=engine(troubles={A: LoadTrouble("x", "", attempts=1, retry_at=5.0)})), [("Load", B)]),
        (snapshot(WANT_AB, files=VERIFIED, engine=engine(B, troubles={A: LoadTrouble("x", "", attempts=1, retry_at=5.0)})), [("Load", A)]),
        (snapshot(WANT_AB, files=VERIFIED, engine=engine(B, troubles={A: LoadTrouble("x", "", attempts=1, retry_at=15.0)})), []),
        (
            snapshot(WANT_AB, files=VERIFIED, engine=engine(B, troubles={A: LoadTrouble("x", "", refused=True)}), on_disk=frozenset({A, B})),
            [("Delete", A)],
        ),
        (snapshot(WANT_A, engine=engine(troubles={A: LoadTrouble("x", "", refused=True)})), []),  # or it would be fetched and deleted for ever
        (snapshot(desired(), engine=engine(OLD)), []),  # the guard has to take the routing first
        (snapshot(desired(), engine=engine(OLD, routing={"medical": OLD})), []),
        (snapshot(desired(), engine=engine(OLD, routing={}), routing_busy=True), []),
        (snapshot(desired(), engine=engine(OLD, routing={}, candidate=OLD)), []),
        (snapshot(desired(), engine=engine(routing={}, candidate=OLD), on_disk=frozenset({OLD})), []),
        (snapshot(desired(), engine=engine(OLD, routing={}, inflight={OLD: 1})), []),
        (snapshot(desired(), engine=engine(OLD, routing={}, inflight={OLD: 0})), [("Unload", OLD)]),
        (snapshot(desired(), engine=engine(OLD, routing={}), on_disk=frozenset({OLD})), [("Unload", OLD)]),
        (snapshot(desired(), engine=engine(routing={}), on_disk=frozenset({OLD})), [("Delete", OLD)]),
        (snapshot(desired(), engine=engine(routing={}, inflight={OLD: 1}), on_disk=frozenset({OLD})), []),
        (snapshot(desired(), engine=engine(routing={}), on_disk=frozenset({OLD}), unloading=OLD), []),
        (snapshot(desired(), engine=None, on_disk=frozenset({OLD})), []),
        (snapshot(desired(), engine=engine(draining=True), on_disk=frozenset({OLD})), []),
        (snapshot(desired(), engine=engine(OLD, routing={}, troubles={OLD: LoadTrouble("x", "", retry_at=12.0)})), []),
        (snapshot(WANT_A, files=files(a, WANT_A, FileState.REFUSED), engine=engine(A, routing={}), on_disk=frozenset({A})), [("Unload", A)]),
    ],
)
def test_a_situation_has_its_actions(situation: Snapshot, expected: list[tuple[str, str]]) -> None:
    assert kinds(decide(situation)) == expected


def test_required_adapters_are_fetched_and_loaded_first() -> None:
    want = desired(a, adapter(B, required=True))
    assert kinds(decide(snapshot(want))) == [("Fetch", B), ("Fetch", A)]
    known = files(a, want) | files(want.adapters[1], want)
    assert kinds(decide(snapshot(want, files=known, engine=engine()))) == [("Load", B)]


def test_an_alias_goes_to_the_first_preferred_adapter_that_is_listed() -> None:
    want = desired(a, old, aliases={"medical": (A, OLD)})
    assert route(decide(snapshot(want, engine=engine(OLD))))["aliases"] == {"medical": OLD}
    assert route(decide(snapshot(want, engine=engine(OLD, A))))["aliases"] == {"medical": A}
    assert route(decide(snapshot(want, engine=engine(OLD, A), unloading=A)))["aliases"] == {"medical": OLD}
    refused = files(a, want, FileState.REFUSED, reason="NotFinite")
    assert route(decide(snapshot(want, engine=engine(OLD, A), files=refused)))["aliases"] == {"medical": OLD}


@pytest.mark.parametrize(
    ("known", "troubles", "expected"),
    [
        ({}, {}, ("AdapterLoading", 2)),
        (files(a, WANT_A, FileState.FAILED, reason="StoreUnreachable", attempts=1, retry_at=99.0), {}, ("StoreUnreachable", 10)),
        (files(a, WANT_A, FileState.REFUSED, reason="NotFinite", attempts=1), {}, ("NotFinite", 60)),
        (files(a, WANT_A), {A: LoadTrouble("LoadFailed", "", attempts=1, retry_at=99.0)}, ("LoadFailed", 10)),
        (files(a, WANT_A), {A: LoadTrouble("Unsupported", "", refused=True)}, ("Unsupported", 60)),
    ],
)
def test_an_alias_without_an_adapter_says_why_and_when_to_ask_again(known: Any, troubles: Any, expected: tuple[str, int]) -> None:
    body = route(decide(snapshot(WANT_A, files=known, engine=engine(troubles=troubles))))
    assert body["unavailable"] == {"medical": {"reason": expected[0], "retryAfterSeconds": expected[1]}}
    assert body["aliases"] == {}


def test_the_same_routing_is_not_sent_twice() -> None:
    body = route(decide(snapshot(WANT_A, engine=engine(A), files=files(a, WANT_A))))
    sent = Engine("i1", 0.0, listed=frozenset({A}), routing=body)
    assert decide(snapshot(WANT_A, engine=sent, files=files(a, WANT_A))).actions == ()


def test_readiness_waits_for_required_adapters_until_the_deadline() -> None:
    want = desired(adapter(A, required=True), deadline=30)
    waiting = decide(snapshot(want, now=29.0, engine=engine()))
    assert (route(waiting)["ready"], waiting.wake_at) == (False, 30.0)
    assert route(decide(snapshot(want, now=30.0, engine=engine())))["ready"] is True
    assert route(decide(snapshot(want, now=1.0, engine=engine(A))))["ready"] is True
    assert route(decide(snapshot(want, now=1.0, engine=engine(ready=True))))["ready"] is True
    refused = files(want.adapters[0], want, FileState.REFUSED)
    assert route(decide(snapshot(want, now=1.0, engine=engine(), files=refused)))["ready"] is True


def test_a_decision_says_when_the_next_retry_is_due() -> None:
    known = files(a, WANT_AB, FileState.FAILED, retry_at=17.0) | files(b, WANT_AB, FileState.FAILED, retry_at=14.0)
    assert decide(snapshot(WANT_AB, files=known)).wake_at == 14.0
    assert decide(snapshot(desired())).wake_at == math.inf


NAMES = [A, B, OLD, "zeta--cccccccccccc"]
subsets = st.frozensets(st.sampled_from(NAMES))


def _map(aliases: frozenset[str], candidates: frozenset[str]) -> dict[str, Any]:
    tried = {name.split("--")[0]: {"engine": name, "weight": 10} for name in candidates}
    return {"aliases": {name.split("--")[0]: name for name in aliases}, "candidates": tried}


@st.composite
def situations(draw: st.DrawFn) -> Snapshot:
    chosen = [adapter(name, required=draw(st.booleans())) for name in NAMES if draw(st.booleans())]
    aliases: dict[str, tuple[str, ...]] = {}
    for item in chosen:
        aliases[item.alias] = (*aliases.get(item.alias, ()), item.engine_name)
    tried = {item.alias: Candidate(item.engine_name, draw(st.integers(0, 100))) for item in chosen if draw(st.booleans())}
    want = desired(*chosen, aliases=aliases, deadline=draw(st.sampled_from([0.0, 100.0])), candidates=tried)
    known: dict[str, Files] = {}
    for item in chosen:
        state = draw(st.sampled_from([None, *FileState]))
        if state:
            known |= files(item, want, state, reason="x", attempts=draw(st.integers(0, 3)), retry_at=draw(st.sampled_from([0.0, 20.0])))
    troubles = {
        name: LoadTrouble("LoadFailed", "m", refused=draw(st.booleans()), attempts=1, retry_at=draw(st.sampled_from([0.0, 20.0])))
        for name in draw(subsets)
    }
    seen = draw(st.none() | st.just(True))
    process = seen and Engine(
        "i1",
        0.0,
        draining=draw(st.booleans()),
        ready=draw(st.booleans()),
        listed=draw(st.none() | subsets),
        inflight={name: draw(st.integers(0, 2)) for name in draw(subsets)},
        routing=draw(st.none() | st.builds(_map, subsets, subsets)),
        troubles=troubles,
    )
    busy = draw(st.sampled_from(["", *NAMES]))
    return snapshot(
        want,
        files=known,
        on_disk=draw(subsets),
        engine=process,
        loading=busy if draw(st.booleans()) else "",
        unloading=busy if draw(st.booleans()) else "",
        routing_busy=draw(st.booleans()),
        deleting=draw(subsets),
        base_fingerprint=draw(st.sampled_from(["", BASE])),
    )


@given(situations())
def test_what_must_never_happen_never_happens(situation: Snapshot) -> None:
    decision = decide(situation)
    assert decide(situation) == decision
    assert decision.wake_at > situation.now
    changes = [action for action in decision.actions if isinstance(action, Load | Unload)]
    assert len(changes) <= 1
    wanted = {item.engine_name for item in situation.desired.adapters} if situation.desired else set()
    process = situation.engine
    routed = routed_names(process.routing) if process else frozenset()
    for action in decision.actions:
        if not isinstance(action, Fetch):
            assert process is not None
            assert process.listed is not None
            assert not process.draining
        if isinstance(action, Load):
            known = situation.files[action.adapter.engine_name]
            assert known.state is FileState.VERIFIED
            assert action.adapter.engine_name in wanted - process.listed - situation.deleting
        elif isinstance(action, Unload):
            assert action.name in process.listed
            assert action.name not in routed
            assert process.routing is not None
            assert not process.inflight.get(action.name)
            assert not situation.routing_busy
        elif isinstance(action, Delete):
            assert action.name not in process.listed | routed | {situation.loading, situation.unloading}
            assert not process.inflight.get(action.name)
        elif isinstance(action, Route):
            assert routed_names(action.body) <= process.listed & wanted - {situation.unloading}
            assert set(action.body["versions"]) == routed_names(action.body)
            assert not set(action.body["aliases"]) & set(action.body["unavailable"])
            assert set(action.body["aliases"]) | set(action.body["unavailable"]) == set(situation.desired.aliases if situation.desired else ())
    fetched = [action.adapter.engine_name for action in decision.actions if isinstance(action, Fetch)]
    deleted = {action.name for action in decision.actions if isinstance(action, Delete)}
    assert not set(fetched) & (situation.deleting | deleted & wanted)


@given(situations())
def test_carrying_out_what_is_decided_comes_to_rest_with_the_desired_state(situation: Snapshot) -> None:
    """Play a store and an engine that do as they are told: after a bounded number of steps nothing is left to do."""
    if (
        situation.engine is None
        or situation.engine.listed is None
        or situation.engine.draining
        or not situation.base_fingerprint
        or situation.desired is None
    ):
        return
    process, want = situation.engine, situation.desired
    process.inflight = {}
    situation.loading = situation.unloading = ""
    situation.routing_busy, situation.deleting, situation.now = False, frozenset(), 50.0
    known = {name: item for name, item in situation.files.items() if item.state is not FileState.WORKING}
    situation.files = known
    for _ in range(60):
        decision = decide(situation)
        if not decision.actions:
            break
        for action in decision.actions:
            if isinstance(action, Fetch):
                known[action.adapter.engine_name] = Files(FileState.VERIFIED, action.key)
                situation.on_disk |= {action.adapter.engine_name}
            elif isinstance(action, Load):
                process.listed = (process.listed or frozenset()) | {action.adapter.engine_name}
                process.troubles.pop(action.adapter.engine_name, None)
            elif isinstance(action, Unload):
                process.listed = (process.listed or frozenset()) - {action.name}
                process.troubles.pop(action.name, None)
            elif isinstance(action, Delete):
                situation.on_disk -= {action.name}
                if action.name in known and known[action.name].state is FileState.VERIFIED:
                    del known[action.name]
            else:
                process.routing = action.body
    else:
        raise AssertionError(f"never comes to rest: {decide(situation).actions}")
    good = {item.engine_name for item in want.adapters if item.engine_name in (process.listed or ())}
    assert (process.listed or frozenset()) == good
    assert process.routing is not None
    assert process.routing["ready"] is True


def test_a_guard_without_its_keys_is_not_told_that_it_is_ready_not_even_after_the_deadline() -> None:
    want = desired(deadline=1)
    assert route(decide(snapshot(want, engine=engine(), keys_missing=True)))["ready"] is False
    assert route(decide(snapshot(want, engine=engine())))["ready"] is True
    assert route(decide(snapshot(want, engine=engine(ready=True), keys_missing=True)))["ready"] is True, "what is ready stays so"
