"""The trainers of runs (contracts.md, section 7)."""

from __future__ import annotations

import aiohttp

from graftwork import contracts, names
from graftwork.clock import Clock
from graftwork.cluster.peers import PeerWatcher, Role
from graftwork.cluster.protocol import WakeApi

# A trainer's version changes with every step; a status once in two seconds is enough for people.
ROLE = Role("trainer", names.PORT_TRAINER, "/progress", contracts.PROGRESS, pause_seconds=2.0)


class TrainerWatcher(PeerWatcher):
    """Keeps the last valid `/progress` of each watched pod."""

    def __init__(self, wake: WakeApi, clock: Clock, session: aiohttp.ClientSession, role: Role = ROLE) -> None:
        """`role` is another one only in tests."""
        super().__init__(role, wake, clock, session)
