"""Carrying out what was decided: each action is one task that ends by writing what it learned into the state."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from graftwork_store.clock import now as rfc3339_now
from graftwork_store.errors import StoreError
from graftwork_store.store import Store

from graftwork_agent import backoff
from graftwork_agent.decide import Action, Delete, Engine, Fetch, Files, FileState, Load, LoadTrouble, Route, Unload
from graftwork_agent.desired import Adapter
from graftwork_agent.engine import EngineClient, EngineGone, EngineOdd, EngineOther, LoadRefused
from graftwork_agent.metrics import Metrics
from graftwork_agent.prepare import prepare, remove
from graftwork_agent.refusal import FINAL_REASONS, Refusal
from graftwork_agent.state import State
from graftwork_agent.status import Times

LOG = logging.getLogger("graftwork_agent")
_WORKERS = 8  # a store that hangs on one adapter holds one of them


class Actions:
    """Starts actions and keeps their tasks."""

    def __init__(self, state: State, client: EngineClient, metrics: Metrics, open_store: Callable[[], Store]) -> None:
        self._state = state
        self._client = client
        self._metrics = metrics
        self._open_store = open_store
        self._store: Store | None = None
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="files")
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, action: Action) -> None:
        """Mark an action as being done, so that it is not decided again, and start it."""
        state, engine = self._state, self._state.engine
        if isinstance(action, Fetch):
            name = action.adapter.engine_name
            before = state.files.get(name)
            again = before if before and before.key == action.key else Files(FileState.WORKING, action.key)
            state.files[name] = Files(FileState.WORKING, action.key, again.reason, again.message, again.attempts)
            self.spawn(self._fetch(action))
        elif isinstance(action, Delete):
            state.deleting.add(action.name)
            self.spawn(self._delete(action.name))
        elif isinstance(action, Load) and engine:
            state.loading = action.adapter.engine_name
            self.spawn(self._load(engine, action.adapter))
        elif isinstance(action, Unload) and engine:
            state.unloading = action.name
            self.spawn(self._unload(engine, action.name))
        elif isinstance(action, Route) and engine:
            state.routing_busy = True
            self.spawn(self._route(engine, action.body))

    def give_keys(self) -> None:
        """Send the API keys to an engine process that does not have them."""
        engine = self._state.engine
        body = self._state.keys.due(engine.instance) if engine else None
        if engine and body:
            self._state.keys.busy = True
            self.spawn(self._give_keys(engine, body))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task whose end wakes the agent and whose failure is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def warm_up(self) -> None:
        """Open the store before the first adapter is seen: a client's first request costs more than all that follow."""
        with contextlib.suppress(StoreError):  # the first adapter will say what is wrong
            await asyncio.get_running_loop().run_in_executor(self._pool, lambda: self._opened().touch())

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    async def close(self) -> None:
        """Cancel what is running; files that are half written have names that the next start removes."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            LOG.error("a task of the agent failed", exc_info=task.exception())
        self._state.wake.set()

    async def _fetch(self, action: Fetch) -> None:
        state, name = self._state, action.adapter.engine_name
        folder = state.settings.adapters_dir / name
        attempts = state.files[name].attempts + 1
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._prepare, action.adapter)
            state.files[name] = Files(FileState.VERIFIED, action.key)
        except (Refusal, StoreError) as error:
            verdict = FileState.REFUSED if error.reason in FINAL_REASONS else FileState.FAILED
            self._not_ready(action, verdict, error.reason, error.message, attempts)
        except Exception as error:
            LOG.exception("%s: unexpected", name)
            self._not_ready(action, FileState.FAILED, "LoadFailed", f"the files could not be made ready ({type(error).__name__}: {error})", attempts)
        if folder.is_dir():
            state.on_disk.add(name)

    def _prepare(self, adapter: Adapter) -> None:
        """Runs in a thread; `base` and `desired` are replaced as a whole and never changed, so reading them here is safe."""
        base, desired = self._state.base, self._state.inputs.desired
        if base is None or desired is None:
            raise RuntimeError("nothing is desired, or the base was never read")
        prepare(adapter, self._state.settings.adapters_dir / adapter.engine_name, self._opened(), base, desired.max_rank)

    def _not_ready(self, action: Fetch, verdict: FileState, reason: str, message: str, attempts: int) -> None:
        retry_at = time.monotonic() + backoff.delay(attempts)
        self._state.files[action.adapter.engine_name] = Files(verdict, action.key, reason, message, attempts, retry_at)
        self._metrics.failures.labels(reason).inc()
        LOG.warning("%s: %s: %s", action.adapter.engine_name, reason, message)

    async def _delete(self, name: str) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, remove, self._state.settings.adapters_dir / name)
        finally:
            self._state.on_disk.discard(name)  # also after a failure, which is logged once and would not go away by itself
            self._state.deleting.discard(name)
            files = self._state.files.get(name)
            if files and files.state is FileState.VERIFIED:
                del self._state.files[name]  # should the adapter be wanted again, there is nothing to load

    async def _load(self, engine: Engine, adapter: Adapter) -> None:
        state, name = self._state, adapter.engine_name
        times = state.times.setdefault(name, Times())
        started = time.monotonic()
        if not times.load_sent_at and name in state.seen:
            self._metrics.seen_to_sent.observe(started - state.seen[name])
        times.load_sent_at = rfc3339_now()
        try:
            state.changes += 1
            await self._client.load(name, state.settings.adapters_dir / name)
            state.changes += 1
            engine.listed = await self._client.adapters()
            if name not in engine.listed:
                raise LoadRefused("LoadFailed", "vLLM said that the adapter was loaded and does not list it")
            times.loaded_at = rfc3339_now()
            engine.troubles.pop(name, None)
            state.crashes.pop(name, None)
            state.suspect = None  # what loads is alive
            self._metrics.loads.inc()
            self._metrics.load_seconds.observe(time.monotonic() - started)
            LOG.info("%s: loaded in %.3f s", name, time.monotonic() - started)
        except EngineGone as error:
            state.broke = name
            self._trouble(engine, name, LoadRefused("LoadFailed", f"the engine's connection broke during the load ({error})"))
            await self._look(engine)
        except EngineOdd as error:
            self._trouble(engine, name, LoadRefused("LoadFailed", str(error)))
        except LoadRefused as error:
            if error.odd:
                state.load_failed_oddly(name)
            self._trouble(engine, name, error)
        finally:
            state.loading = ""

    async def _unload(self, engine: Engine, name: str) -> None:
        state = self._state
        try:
            view = await self._client.view()  # asked after the guard took the routing: nobody new can have come since
            if view.instance != engine.instance:
                state.lost_engine()
                return
            if view.inflight.get(name, 0):
                state.saw_engine(view)
                return
            state.changes += 1
            await self._client.unload(name)
            state.changes += 1
            engine.listed = await self._client.adapters()
            if name in engine.listed:
                raise LoadRefused("LoadFailed", "vLLM said that the adapter was unloaded and lists it")
            engine.troubles.pop(name, None)
            self._metrics.unloads.inc()
            LOG.info("%s: unloaded", name)
        except LoadRefused as error:
            self._trouble(engine, name, error)
        except (EngineGone, EngineOdd) as error:
            self._trouble(engine, name, LoadRefused("LoadFailed", str(error)))
        finally:
            state.unloading = ""

    async def _look(self, engine: Engine) -> None:
        """See whether the process is still there, so that nothing more is sent to one that has ended; the hanging GET finds the next one."""
        with contextlib.suppress(EngineOdd):
            try:
                there = (await self._client.view()).instance == engine.instance
            except EngineGone:
                there = False
            if not there and self._state.engine is engine:
                self._state.lost_engine()

    def _trouble(self, engine: Engine, name: str, error: LoadRefused) -> None:
        before = engine.troubles.get(name)
        attempts = before.attempts + 1 if before else 1
        engine.troubles[name] = LoadTrouble(error.reason, error.message, error.final, attempts, time.monotonic() + backoff.delay(attempts))
        self._metrics.failures.labels(error.reason).inc()
        LOG.warning("%s: %s: %s", name, error.reason, error.message)

    async def _give_keys(self, engine: Engine, body: dict[str, Any]) -> None:
        try:
            if await self._client.give_keys(body) == engine.instance:
                self._state.keys.taken(engine.instance, body)
        except (EngineGone, EngineOdd) as error:
            LOG.warning("keys: %s", error)
            await asyncio.sleep(self._state.settings.connect_seconds)
        finally:
            self._state.keys.busy = False

    async def _route(self, engine: Engine, body: dict[str, Any]) -> None:
        try:
            if await self._client.route(body) == engine.instance:
                engine.routing = body
                engine.ready = engine.ready or bool(body["ready"])
        except EngineOther as error:
            LOG.warning("routing: %s", error)
            if self._state.engine is engine:
                self._state.lost_engine()  # what is believed of it is of another process; the watch looks again, after its pause
        except (EngineGone, EngineOdd) as error:
            LOG.warning("routing: %s", error)
            await asyncio.sleep(self._state.settings.connect_seconds)
        finally:
            self._state.routing_busy = False
