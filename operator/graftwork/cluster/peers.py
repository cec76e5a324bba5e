"""One hanging GET to each pod that speaks a contract of ours: the agent beside an engine, the trainer in a run.

The pod answers when its version differs from the one we name, or after a while; so news comes at once and nothing is polled. What comes
is untrusted: it has a size limit, must follow its schema, and redirects are not followed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import aiohttp

from graftwork import contracts
from graftwork.clock import Clock
from graftwork.cluster import metrics
from graftwork.cluster.kinds import Key
from graftwork.cluster.protocol import Object, PeerView, PodRef, WakeApi

logger = logging.getLogger(__name__)

HANG_SECONDS = 30
ANSWER_SECONDS = 15.0
SIZE_LIMIT = 256 * 1024
FAILURES_TO_UNREACHABLE = 2
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Role:
    """What is asked: where, which contract, and how often at most."""

    name: str
    port: int
    path: str
    schema: str
    pause_seconds: float


@dataclass
class _Peer:
    pod: PodRef
    view: PeerView
    failures: int = 0
    task: asyncio.Task[None] | None = None


class PeerError(Exception):
    """The pod did not answer as its contract says."""


class PeerWatcher:
    """Watches the pods of resources; see `PeerWatcherApi`."""

    def __init__(self, role: Role, wake: WakeApi, clock: Clock, session: aiohttp.ClientSession) -> None:
        """`wake` is called with the resource's key when an answer or the reachability of one of its pods changed."""
        self._role = role
        self._wake = wake
        self._clock = clock
        self._session = session
        self._peers: dict[str, _Peer] = {}
        self._by_key: dict[Key, dict[str, PodRef]] = {}

    def watch(self, key: Key, pods: Sequence[PodRef]) -> None:
        """Watch exactly these pods for the resource; pods without an IP are left out."""
        wanted = {pod.uid: pod for pod in pods if pod.ip}
        before = self._by_key.get(key, {})
        if wanted == before:
            return
        for uid, pod in before.items():
            if wanted.get(uid) != pod:
                self._drop(uid)
        for uid, pod in wanted.items():
            if before.get(uid) != pod:
                self._add(key, pod)
        if wanted:
            self._by_key[key] = wanted
        else:
            self._by_key.pop(key, None)

    def get(self, pod_uid: str) -> PeerView:
        """Return what is known of the pod; one that is not watched is unreachable with no status."""
        peer = self._peers.get(pod_uid)
        return peer.view if peer else PeerView(None, False, self._clock.now())

    async def close(self) -> None:
        """End all watching."""
        tasks = [peer.task for peer in self._peers.values() if peer.task]
        for uid in list(self._peers):
            self._drop(uid)
        self._by_key.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _add(self, key: Key, pod: PodRef) -> None:
        self._drop(pod.uid)
        peer = _Peer(pod, PeerView(None, False, self._clock.now()))
        peer.task = asyncio.create_task(self._follow(key, peer), name=f"{self._role.name} of {pod.namespace}/{pod.name}")
        self._peers[pod.uid] = peer
        metrics.PEERS.labels(self._role.name, "no").inc()

    def _drop(self, uid: str) -> None:
        peer = self._peers.pop(uid, None)
        if peer and peer.task:
            peer.task.cancel()
            metrics.PEERS.labels(self._role.name, "yes" if peer.view.reachable else "no").dec()

    async def _follow(self, key: Key, peer: _Peer) -> None:
        while True:
            since = str(peer.view.status["version"]) if peer.view.status and peer.view.reachable else ""
            asked = self._clock.monotonic()
            try:
                status = await self._ask(peer.pod, since)
            except (PeerError, aiohttp.ClientError, OSError, ValueError) as error:  # timeouts are OSErrors, refused documents ValueErrors
                self._failed(key, peer, error)
                await self._clock.sleep(RETRY_SECONDS[min(peer.failures, len(RETRY_SECONDS)) - 1])
                continue
            self._answered(key, peer, status)
            early = status["version"] == since and self._clock.monotonic() - asked < 1.0
            await self._clock.sleep(1.0 if early else self._role.pause_seconds)

    async def _ask(self, pod: PodRef, since: str) -> Object:
        address = ip_address(pod.ip)
        host = f"[{address}]" if address.version == 6 else str(address)
        url = f"http://{host}:{self._role.port}{self._role.path}"
        # Without a known version the answer comes at once, so only a hanging request may take long.
        limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS + (HANG_SECONDS if since else 0), sock_connect=5)
        params = {"since": since, "wait": str(HANG_SECONDS)} if since else {}
        async with self._session.get(url, params=params, timeout=limit, allow_redirects=False) as response:
            if response.status != 200:
                raise PeerError(f"HTTP {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_chunked(65536):
                body += chunk
                if len(body) > SIZE_LIMIT:
                    raise PeerError(f"the answer is larger than {SIZE_LIMIT} bytes")
        return contracts.parse(self._role.schema, bytes(body))

    def _answered(self, key: Key, peer: _Peer, status: Object) -> None:
        peer.failures = 0
        old = peer.view
        since = old.since if old.reachable else self._clock.now()
        self._set(peer, PeerView(status, True, since))
        if not old.reachable or old.status != status:
            self._wake(key)

    def _failed(self, key: Key, peer: _Peer, error: Exception) -> None:
        peer.failures += 1
        if peer.view.reachable and peer.failures >= FAILURES_TO_UNREACHABLE:
            logger.info("the %s of pod %s/%s does not answer: %r", self._role.name, peer.pod.namespace, peer.pod.name, error)
            self._set(peer, PeerView(peer.view.status, False, self._clock.now()))
            self._wake(key)
        elif peer.failures == len(RETRY_SECONDS):
            logger.debug("the %s of pod %s/%s does not answer yet: %r", self._role.name, peer.pod.namespace, peer.pod.name, error)

    def _set(self, peer: _Peer, view: PeerView) -> None:
        if peer.view.reachable != view.reachable:
            metrics.PEERS.labels(self._role.name, "yes" if view.reachable else "no").inc()
            metrics.PEERS.labels(self._role.name, "yes" if peer.view.reachable else "no").dec()
        peer.view = view


def new_session() -> aiohttp.ClientSession:
    """Return the session for hanging GETs: no limit of connections, no cookies, no proxies."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
