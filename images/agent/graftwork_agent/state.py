"""Everything the agent knows, in one place that belongs to the event loop; and the status document made of it."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from graftwork_store.clock import now as rfc3339_now
from graftwork_store.fingerprint import BaseModel

from graftwork_agent import backoff
from graftwork_agent.decide import Engine, Files, FileState, LoadTrouble, Snapshot
from graftwork_agent.desired import Adapter, Desired
from graftwork_agent.engine import View
from graftwork_agent.inputs import Inputs
from graftwork_agent.keys import Keys
from graftwork_agent.said import read_said
from graftwork_agent.settings import Settings
from graftwork_agent.status import API_VERSION, FEATURES, Times, adapter_rows

DYING_SECONDS = 10.0  # how long after the end of its core vLLM's process may go on answering, with 500 (its watchdog looks every 5 s)
CRASHES = 3  # an adapter during whose load the engine ended this often is not sent again by this agent


class State:
    """What is known. Changes go through its methods or the actions; whoever changes something sets `wake`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.wake = asyncio.Event()
        self.inputs = Inputs(settings.config_dir, settings.podinfo_dir)
        self.keys = Keys(settings.keys_dir)
        self.base: BaseModel | None = None
        self.described: dict[str, Any] = {}  # what a look at its source would say of it besides
        self.base_error = ""
        self.files: dict[str, Files] = {}
        self.on_disk: set[str] = set()
        self.deleting: set[str] = set()
        self.loading = ""
        self.unloading = ""
        self.routing_busy = False
        self.changes = 0  # counts loads and unloads, so that a listing that began before one is known to be old
        self.engine: Engine | None = None
        self.view: View | None = None
        self.watching: asyncio.Timeout | None = None  # the wait for news of the engine, so that it can be ended
        self.broke = ""  # the adapter during whose load the connection broke, until it is known whether the process ended
        self.suspect: tuple[str, float] | None = None  # the adapter whose load failed as if the engine were dying, and when
        self._gone_at = math.inf  # when the present engine process was lost
        self.crashes: dict[str, int] = {}
        self.times: dict[str, Times] = {}
        self.seen: dict[str, float] = {}
        self.known: dict[str, Adapter] = {}
        self._announced: dict[str, tuple[float, str]] = {}  # when the annotation told a hash whose file was not there yet
        self._last_engine: Engine | None = None

    def read_inputs(self) -> None:
        """Read the mounted files again; notes when an adapter was seen first."""
        if self.keys.read():
            self.wake.set()
        expected, before = self.inputs.expected_hash, self.inputs.desired
        if not self.inputs.read():
            return
        now = (time.monotonic(), rfc3339_now())
        if self.inputs.expected_hash not in ("", expected):
            self._announced[self.inputs.expected_hash] = now
        desired = self.inputs.desired
        if desired:
            self._note(desired, *self._announced.pop(desired.hash, now))
        if desired is not before:  # a file may skip what was announced before it; only the newest is still awaited
            self._announced = {each: at for each, at in self._announced.items() if each == self.inputs.expected_hash}
        self.wake.set()

    def _note(self, desired: Desired, seen: float, seen_at: str) -> None:
        """Take what the file lists. It was seen when its hash was: the annotation may have told that before the file came."""
        for adapter in desired.adapters:
            self.known[adapter.engine_name] = adapter
            if adapter.engine_name not in self.seen:
                self.seen[adapter.engine_name] = seen
                self.times[adapter.engine_name] = Times(seen_at=seen_at)

    def saw_engine(self, view: View) -> bool:
        """Take what the guard said; returns whether it is a process that was never seen before."""
        draining = bool(self.view and self.view.draining)
        self.view = view
        last = self._last_engine
        new = last is None or last.instance != view.instance
        culprit = self._culprit() if new and not draining else ""
        if culprit:
            self.crashes[culprit] = self.crashes.get(culprit, 0) + 1
        if new:
            self.suspect = None
        self.broke, self._gone_at = "", math.inf
        if new or last is None:
            self.engine = Engine(view.instance, time.monotonic(), troubles=self._after_crashes())
        elif self.engine is None:  # the same process answers again; what it lists and routes is asked anew
            last.listed = last.routing = None
            self.engine = last
        engine = self._last_engine = self.engine
        if engine is not None:
            engine.draining, engine.inflight = view.draining, dict(view.inflight)
            engine.ready = engine.ready or view.ready
        self.wake.set()
        return new

    def load_failed_oddly(self, name: str) -> None:
        """Note that the engine failed a load in a way in which one that dies fails it; whoever comes after it in the same moments is a bystander."""
        now = time.monotonic()
        if self.suspect is None or now - self.suspect[1] > DYING_SECONDS:
            self.suspect = (name, now)

    def _culprit(self) -> str:
        """Return the adapter whose load ended the last process, if one did: of several, the one that failed first."""
        gone = min(self._gone_at, time.monotonic())
        return self.suspect[0] if self.suspect and gone - self.suspect[1] <= DYING_SECONDS else self.broke

    def lost_engine(self) -> None:
        """Note that the engine does not answer, or that another process does; whoever waits for news of it is told."""
        self.engine = None
        self._gone_at = min(self._gone_at, time.monotonic())
        if self.watching:
            self.watching.reschedule(asyncio.get_running_loop().time())
            self.watching = None
        self.wake.set()

    def snapshot(self) -> Snapshot:
        """Return what a decision needs."""
        return Snapshot(
            now=time.monotonic(),
            desired=self.inputs.desired,
            base_fingerprint=self.base.fingerprint if self.base else "",
            files=self.files,
            on_disk=frozenset(self.on_disk),
            engine=self.engine,
            loading=self.loading,
            unloading=self.unloading,
            routing_busy=self.routing_busy,
            deleting=frozenset(self.deleting),
            keys_missing=bool(self.engine and self.keys.missing(self.engine.instance)),
        )

    def document(self) -> dict[str, Any]:
        """Return the status without its version."""
        engine, desired = self.engine, self.inputs.desired
        return {
            "apiVersion": API_VERSION,
            "pod": self.settings.pod,
            "features": list(FEATURES),
            "observedHash": desired.hash if desired else "",
            "expectedHash": self.inputs.expected_hash,
            "base": {**self.base.facts(), **self.described} if self.base else {"error": self.base_error} if self.base_error else None,
            "engine": {
                "state": "Starting" if engine is None else "Draining" if engine.draining else "Serving",
                "instance": engine.instance if engine else "",
                "startedAt": self.view.started_at if engine and self.view else "",
                "draining": bool(engine and engine.draining),
                **self._said(),
            },
            "adapters": adapter_rows(self.snapshot(), self.times, self.known, self.base_error),
            "routes": dict(engine.routing["aliases"]) if engine and engine.routing else {},
            **self.keys.status(),
        }

    def _said(self) -> dict[str, str]:
        """Return what the engine said, while it does not serve."""
        said = "" if self.engine else read_said(self.settings.run_dir)
        return {"said": said} if said else {}

    def forget(self) -> None:
        """Drop what is remembered of adapters that are neither desired nor here, so that an old pod does not grow."""
        desired, engine = self.inputs.desired, self.engine
        working = {name for name, files in self.files.items() if files.state is FileState.WORKING}
        listed: frozenset[str] = (engine.listed if engine else None) or frozenset()
        keep = set(desired.by_name() if desired else ()) | self.on_disk | listed | working | self.deleting | {self.loading, self.unloading}
        for memory in (self.known, self.files, self.seen, self.times, self.crashes):
            for name in [name for name in memory if name not in keep]:
                memory.pop(name, None)

    def _after_crashes(self) -> dict[str, LoadTrouble]:
        """What a new engine process inherits: an adapter that ended the last one comes last, and after some times not at all."""
        troubles = {}
        for name, count in self.crashes.items():
            message = f"the engine ended {count} times while it loaded this adapter"
            troubles[name] = LoadTrouble("LoadFailed", message, count >= CRASHES, count, time.monotonic() + backoff.delay(count))
        return troubles
