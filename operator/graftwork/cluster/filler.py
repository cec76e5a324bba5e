"""The Jobs that fill shared caches (contracts.md, section 7d)."""

from __future__ import annotations

import aiohttp

from graftwork import contracts, names
from graftwork.clock import Clock
from graftwork.cluster.peers import PeerWatcher, Role
from graftwork.cluster.protocol import WakeApi

# Every answer becomes a write of a status, and a fill has a new one each second.
ROLE = Role("fill", names.PORT_FILL, "/progress", contracts.FILL_PROGRESS, pause_seconds=5.0)


class FillWatcher(PeerWatcher):
    """Keeps the last valid `/progress` of each watched pod."""

    def __init__(self, wake: WakeApi, clock: Clock, session: aiohttp.ClientSession, role: Role = ROLE) -> None:
        """`role` is another one only in tests."""
        super().__init__(role, wake, clock, session)
