"""Phases of `make bench-serving` with engines: requests lost in each disruption, side by side with a plain Deployment, and in a migration from one.

Both sides have two pods on two nodes, the same model, engine and clients, and are disrupted at the same moment. Clients retry nothing.
"""

from __future__ import annotations

import json
import logging
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import sources
from tests.e2e.adapters import Bucket
from tests.e2e.test_45_operator import configure
from tests.e2e.test_55_plain import running_requests
from tests.e2e.test_60_import import HUB_VARIABLE
from tests.e2e.test_70_sources import Hub, model_files
from tests.harness import install, records
from tests.harness.bench_create import Bench
from tests.harness.disrupt import DISRUPTIONS, Disruption, World, chosen, untag_image, wait_settled
from tests.harness.load import Load
from tests.harness.ready import Ready
from tests.harness.sides import MODEL, PORT, REPOSITORY, Pods, Side, ours, theirs
from tests.harness.windows import Count, Request, Window, count, excused, fewest, gone, within

LOG = logging.getLogger("bench_disrupt")
CLIENTS, TOKENS = 8, 16
PAUSE_SECONDS, SHORT_PAUSE_SECONDS = 2.0, 0.1
"""After an answer, while anything starts, and afterwards: clients that ask without a pause take the cores that starting engines need."""
LOAD_SECONDS = 1200
BEFORE = 16
ENOUGH_SECONDS = 420
"""So long it may take to get the wanted number of requests, after everything has settled."""
STREAM_SHARE = 0.3
RULES_SECONDS = 2.0
"""kube-proxy writes its rules within a second of the change of an endpoint, and says so to nobody."""
IDLE_SECONDS = 3.0
ENDPOINT_SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    """What a disruption cost one side."""

    count: Count
    of_the_killed: Count
    fewest: int
    seconds: float


@dataclass(frozen=True)
class Watched:
    """A side under load."""

    side: Side
    load: Load
    ready: Ready

    def outcome(self, window: Window, settled: float, killed: tuple[float, str] | None) -> Outcome:
        """Return what the window holds."""
        requests = within(self.load.tally.all(), window)
        of_the_killed: list[Request] = []
        samples = self.ready.samples
        if killed:
            at, address = killed
            of_the_killed, requests = excused(requests, at, gone(samples, address, at) + RULES_SECONDS)
        return Outcome(count(requests), count(of_the_killed), fewest(samples, window), settled - window.began)


def disruptions(bench: Bench) -> None:
    """Disrupt both sides in each way and record each as soon as it is known."""
    failed = []
    with world(bench) as found:
        start(found)
        for name in chosen(bench.sizes.disruptions):
            began = time.monotonic()
            try:
                one(bench, found, DISRUPTIONS[name])
            except Exception:
                LOG.exception("%s failed", name)
                failed.append(name)
                restore(found)
            print(f"--- {name}: {time.monotonic() - began:.0f} s", flush=True)
    if failed:
        raise AssertionError(f"not measured: {', '.join(failed)}; again: make bench-serving ONLY=disruptions ARGS='--disruptions {','.join(failed)}'")


@contextmanager
def world(bench: Bench) -> Iterator[World]:
    """Give both sides, not started yet, and a hub with the tiny model that the operator's configuration names; remove them afterwards."""
    environment = bench.place.environment
    if environment is None:
        raise AssertionError("there are no nodes here, so nothing serves: leave out --where")
    kube, system = environment.kube.within(install.TEST_NAMESPACE), environment.kube.within(install.SYSTEM_NAMESPACE)
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="graftwork-hub-") as folder:
        install.make_model(environment)
        sources.repository(Path(folder), REPOSITORY, model_files(Bucket.connect(kube, system)))
        with sources.hub(Path(folder), [token]) as address:
            configure(system, f"{HUB_VARIABLE}={address}")
            found = World(environment, Hub(address, Path(folder), token), ours(kube), theirs(kube, environment.images))
            remove(found)
            try:
                yield found
            finally:
                remove(found)
                untag_image(found)
                configure(system, f"{HUB_VARIABLE}-")


def start(found: World) -> None:
    """Start both sides and wait until each has two ready pods."""
    found.plain.start()
    found.ours.start()
    for side in found.sides:
        side.settled()


def restore(found: World) -> None:
    """Bring both sides back to two ready pods after a disruption that did not end as it should have."""
    try:
        for side in found.sides:
            side.scale(2)
            side.settled()
    except Exception:
        LOG.exception("not restored")


def remove(found: World) -> None:
    """Delete both sides, and whatever else serves in the namespace: it would take the cores."""
    found.ours.kube.delete("finetunejob,loraadapter,llmdeployment", "--all")
    for side in found.sides:
        side.remove()


def one(bench: Bench, found: World, disruption: Disruption) -> None:
    """Make one disruption happen to both sides and record it."""
    disruption.prepare(found)
    try:
        outcomes = measured(found, disruption, bench.sizes.requests)
    finally:
        disruption.afterwards(found)
    mine, others = outcomes[found.ours.name], outcomes.get(found.plain.name)
    for side in found.sides:
        print(f"{disruption.name}{side.what}: {outcomes.get(side.name)}", flush=True)
    if others and disruption.loses:
        require_loss(disruption.name, others)
    bench.save(*figures(disruption, mine, others))


def measured(found: World, disruption: Disruption, wanted: int) -> dict[str, Outcome]:
    """Load the sides, disrupt them, and return each one's outcome when all is as before and enough requests were asked."""
    sides = [side for side in found.sides if disruption.plain or side is found.ours]
    with ExitStack() as stack:
        watched = [watch(stack, side) for side in sides]
        before = {side.name: side.pods() for side in sides}
        began = time.monotonic()
        disruption.begin(found, before)
        with ThreadPoolExecutor(len(sides)) as pool:
            settled = dict(zip([side.name for side in sides], pool.map(lambda side: _settled(disruption, side, before), sides), strict=True))
        window = until_enough(watched, began, wanted)
        return {each.side.name: each.outcome(window, settled[each.side.name], found.killed.pop(each.side.name, None)) for each in watched}


def watch(stack: ExitStack, side: Side) -> Watched:
    """Begin to ask and to look, and return when both work."""
    ready = stack.enter_context(Ready(side.kube, side.name))
    load = stack.enter_context(Load(side.host, PORT, [MODEL], clients=CLIENTS, tokens=TOKENS, seconds=LOAD_SECONDS, pause=PAUSE_SECONDS))
    load.wait_for(BEFORE)
    return Watched(side, load, ready)


def until_enough(watched: Sequence[Watched], began: float, wanted: int) -> Window:
    """Return the window from `began` until each side was asked often enough in it."""
    for each in watched:
        each.load.pause = SHORT_PAUSE_SECONDS
    for each in watched:
        each.load.wait_until(lambda load=each.load: _asked(load, began) >= wanted, f"{wanted} requests of {each.side.name}", ENOUGH_SECONDS)  # type: ignore[misc]
    return Window(began, time.monotonic())


def _asked(load: Load, began: float) -> int:
    return len(within(load.tally.all(), Window(began, time.monotonic())))


def _settled(disruption: Disruption, side: Side, before: Mapping[str, Pods]) -> float:
    wait_settled(disruption, side, before[side.name])
    return time.monotonic()


def require_loss(name: str, plain: Outcome) -> None:
    """Void a run in which the plain side lost nothing: then these clients would not have seen ours lose something either."""
    if not plain.count.lost + plain.of_the_killed.lost:
        raise AssertionError(
            f"{name}: the plain Deployment lost none of {plain.count.requests} requests, so the comparison proves nothing and is not recorded"
        )


def figures(disruption: Disruption, mine: Outcome, others: Outcome | None) -> list[records.Figure]:
    """Return the row of a disruption."""
    streams = mine.count.streams / max(1, mine.count.requests)
    if streams < STREAM_SHARE:
        raise AssertionError(f"{disruption.name}: only {streams:.0%} of the requests were streams")
    row = {
        "requests": (mine.count.requests, "requests", None),
        "lost": (mine.count.lost, "requests", 0),
        "streams cut": (mine.count.cut, "requests", 0),
        "fewest ready pods": (mine.fewest, "pods", None),
        "pods below the ready floor": (max(0, disruption.floor - mine.fewest), "pods", 0),
        "seconds": (round(mine.seconds, 1), "s", None),
    }
    if disruption.restarts:
        row["failed with the killed pod"] = (mine.of_the_killed.lost, "requests", None)
    if others:
        row["plain: requests"] = (others.count.requests, "requests", None)
        row["plain: lost"] = (others.count.lost + others.of_the_killed.lost, "requests", None)
        row["plain: fewest ready pods"] = (others.fewest, "pods", None)
    return [records.Figure(f"{TITLE}: {disruption.name}: {what}", number, unit, limit, [number]) for what, (number, unit, limit) in row.items()]


TITLE = "requests lost in disruptions"


def migrate(bench: Bench) -> None:
    """Move clients from a plain Deployment to an LLMDeployment as the how-to says, and record what that costs."""
    with world(bench) as found:
        found.plain.start()
        found.plain.settled()
        with ExitStack() as stack:
            watched = watch(stack, found.plain)
            began = time.monotonic()
            found.ours.start()
            pods = found.ours.settled()
            switch(found, watched, {str(pod["status"]["podIP"]) for pod in pods})
            found.plain.scale(0)
            found.plain.kube.wait_gone("pods", found.plain.selector)
            settled = time.monotonic()
            outcome = watched.outcome(until_enough([watched], began, bench.sizes.requests), settled, None)
        print(f"migration: {outcome}", flush=True)
        bench.save(*figures(MIGRATION, outcome, None))


MIGRATION = Disruption("migration from a plain Deployment", lambda *_: None, 2)


def switch(found: World, watched: Watched, addresses: set[str]) -> None:
    """Point the plain Service at the new pods, let clients that hold on to connections open new ones, and wait until the old pods are idle."""
    side = found.plain
    old = [str(pod["status"]["podIP"]) for pod in side.pods()]
    selector = {"op": "replace", "path": "/spec/selector", "value": {"graftwork.dev/deployment": found.ours.name}}
    port = {"op": "replace", "path": "/spec/ports/0/targetPort", "value": "http"}
    side.kube.run("patch", "service", side.name, "--type=json", "-p", json.dumps([selector, port]))
    watched.ready.wait(lambda ready: ready == addresses, ENDPOINT_SECONDS, "the Service asks the new pods")
    deadline, idle_since = time.monotonic() + ENDPOINT_SECONDS, time.monotonic()
    while time.monotonic() - idle_since < IDLE_SECONDS:
        watched.load.reconnect()
        watched.load.wait_for(CLIENTS)
        if any(running_requests(address) for address in old):
            idle_since = time.monotonic()
        if time.monotonic() > deadline:
            raise AssertionError(f"after {ENDPOINT_SECONDS} s clients still ask the old pods")
