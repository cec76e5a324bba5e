"""The sidecar: woken by a file, by the engine or by a deadline, it decides, starts what was decided, and shows what is known."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graftwork_store.errors import StoreError
from graftwork_store.fingerprint import BaseModel, read_base
from graftwork_store.store import Store

from graftwork_agent import backoff
from graftwork_agent.actions import Actions
from graftwork_agent.decide import decide
from graftwork_agent.desired import ENGINE_NAME
from graftwork_agent.engine import EngineClient, EngineGone, EngineOdd, View
from graftwork_agent.inotify import FolderWatch
from graftwork_agent.metrics import Metrics
from graftwork_agent.model_facts import facts
from graftwork_agent.model_folder import FolderModel
from graftwork_agent.prepare import clean
from graftwork_agent.settings import Settings
from graftwork_agent.state import State
from graftwork_agent.status import StatusBoard

LOG = logging.getLogger("graftwork_agent")
_WATCH_SECONDS = 30.0


class Agent:
    """One agent. Its state belongs to the event loop; threads get values and return values."""

    def __init__(self, settings: Settings, open_store: Callable[[], Store] = Store.from_env) -> None:
        self.board = StatusBoard()
        self.metrics = Metrics()
        self._settings = settings
        self._state = State(settings)
        self._client = EngineClient(settings.engine_url, settings.run_dir, load_seconds=settings.load_seconds)
        self._actions = Actions(self._state, self._client, self.metrics, open_store)
        self._base_due = asyncio.Event()

    def is_ready(self) -> bool:
        """Whether an adapters.json was read."""
        return self._state.inputs.desired is not None

    async def run(self) -> None:
        """Work until cancelled."""
        adapters, state = self._settings.adapters_dir, self._state
        adapters.mkdir(parents=True, exist_ok=True)
        clean(adapters)
        state.on_disk = {path.name for path in adapters.iterdir() if ENGINE_NAME.fullmatch(path.name)}
        watch = _folder_watch(state.read_inputs)
        self._base_due.set()
        for work in (self._actions.warm_up(), self._read_base(), self._watch_engine(), self._check_engine()):
            self._actions.spawn(work)
        watched: set[Path] = set()
        try:
            while True:
                self._watch_folders(watch, watched)
                state.read_inputs()
                state.wake.clear()
                decision = decide(state.snapshot())
                self._actions.give_keys()
                for action in decision.actions:
                    self._actions.start(action)
                self._show()
                timeout = min(self._settings.check_seconds, max(0.0, decision.wake_at - time.monotonic()))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):  # not wait_for, which loses a cancellation that comes with the wake-up
                        await state.wake.wait()
        finally:
            if watch:
                watch.close()
            await self._actions.close()
            await self._client.close()

    def _show(self) -> None:
        self._state.forget()
        engine = self._state.engine
        self.metrics.loaded.set(len(engine.listed) if engine and engine.listed else 0)
        self.board.show(self._state.document())

    def _watch_folders(self, watch: FolderWatch | None, watched: set[Path]) -> None:
        for folder in (self._settings.config_dir, self._settings.podinfo_dir, *([self._settings.keys_dir] if self._state.keys.required else [])):
            if watch and folder not in watched:
                try:
                    watch.add(folder)
                    watched.add(folder)
                except OSError as error:  # the loop reads the files every second all the same
                    LOG.debug("%s", error)

    async def _read_base(self) -> None:
        """Read the base model at the start and again when a new engine process serves it; until it can be read, try again."""
        attempts = 0
        while True:
            await self._base_due.wait()
            self._base_due.clear()
            try:
                self._state.base, self._state.described = await asyncio.to_thread(_base, self._settings.base_dir)
                self._state.base_error, attempts = "", 0
                self._state.wake.set()
            except (StoreError, OSError, ValueError, RecursionError) as error:  # the last two: JSON that nobody writes
                self._state.base_error = str(error)
                self._state.wake.set()
                attempts += 1
                await asyncio.sleep(backoff.delay(attempts))
                self._base_due.set()

    async def _watch_engine(self) -> None:
        """Follow the engine for ever: connect while it starts, then wait at the guard's hanging GET."""
        state, odd = self._state, ""
        while True:
            try:
                view = await self._news()
                if state.saw_engine(view):
                    LOG.info("engine: process %s", view.instance)
                    self.metrics.engines.inc()
                    self._base_due.set()
                engine = state.engine  # it may be lost while it answers
                if engine and engine.listed is None:
                    engine.listed = await self._client.adapters()
                    state.wake.set()
            except (EngineGone, EngineOdd) as error:
                if state.engine or (isinstance(error, EngineOdd) and str(error) != odd):
                    LOG.warning("engine: %s", error)
                odd = str(error)
                state.lost_engine()
                await asyncio.sleep(self._settings.connect_seconds)

    async def _news(self) -> View:
        """Wait at the hanging GET; not on when somebody found that another process answers, whose version may happen to be the one waited at."""
        state = self._state
        known = state.view if state.engine else None
        try:
            async with asyncio.timeout(None) as state.watching:
                return await self._client.view(known.version if known else "", _WATCH_SECONDS)
        except TimeoutError:
            raise EngineGone("another process answers") from None
        finally:
            state.watching = None

    async def _check_engine(self) -> None:
        """Read the engine's list every second: what was unloaded inside the process by somebody else comes back."""
        state = self._state
        while True:
            await asyncio.sleep(self._settings.check_seconds)
            engine, changes = state.engine, state.changes
            if engine is None or engine.listed is None:
                continue
            with contextlib.suppress(EngineGone, EngineOdd):  # the hanging GET notices what is wrong
                listed = await self._client.adapters()
                if engine is state.engine and changes == state.changes and listed != engine.listed:
                    LOG.warning("engine: its list changed from inside")
                    engine.listed = listed
                    state.wake.set()


def _base(folder: Path) -> tuple[BaseModel, dict[str, Any]]:
    """Read the base model, and what a look at its source would say: of a claim, which nobody looks up, no other program can tell it."""
    base = read_base(folder)
    try:
        return base, facts(FolderModel(folder))
    except (StoreError, OSError, ValueError) as error:  # the model is served all the same
        LOG.warning("what kind of model it is, nobody is told: %s", error)
        return base, {}


def _folder_watch(changed: Callable[[], None]) -> FolderWatch | None:
    """Return the watch of the mounted folders; None on a node whose limit of inotify instances is used up, which costs up to a second per change."""
    try:
        return FolderWatch(changed)
    except OSError as error:
        LOG.warning("the mounted files are read once a second: %s", error)
        return None
