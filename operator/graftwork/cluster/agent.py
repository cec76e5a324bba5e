"""The agents in serving pods (contracts.md, section 4)."""

from __future__ import annotations

import aiohttp

from graftwork import contracts, names
from graftwork.clock import Clock
from graftwork.cluster.peers import PeerWatcher, Role
from graftwork.cluster.protocol import WakeApi

ROLE = Role("agent", names.PORT_AGENT, "/status", contracts.AGENT_STATUS, pause_seconds=0.02)


class AgentWatcher(PeerWatcher):
    """Keeps the last valid `/status` of each watched pod."""

    def __init__(self, wake: WakeApi, clock: Clock, session: aiohttp.ClientSession, role: Role = ROLE) -> None:
        """`role` is another one only in tests."""
        super().__init__(role, wake, clock, session)
