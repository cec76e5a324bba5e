"""Which kept-alive connections to let go of after the deployment has grown: clients who keep theirs would never reach the new pods. Pure."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any

from graftwork_guard.asgi import Scope

WINDOW_SECONDS = 600.0  # how long after the growth: longer than most answers, and what idles longer has been closed by the server
# Between a growth and the moment at which every node sends connections to the new pod: let go of earlier, a client may come back to an old one.
SETTLE_SECONDS = 10.0
REMEMBERED = 16384  # connections; those that were used last are kept
ONE_IN = 50  # answers that end a connection which cannot be told from others, while the window is open


def _one_in_fifty() -> bool:
    return secrets.randbelow(ONE_IN) == 0


class Connections:
    """Tells connections apart by the client's address and port, and remembers when it saw each first.

    One that was opened before the deployment had grown and the growth had settled ends with its next answer after that, once. A port that a client
    uses again for a new connection may be taken for the old one: that costs one connection more.
    """

    def __init__(self, clock: Callable[[], float] = monotonic, unlucky: Callable[[], bool] = _one_in_fifty, remembered: int = REMEMBERED) -> None:
        self._clock = clock
        self._unlucky = unlucky
        self._remembered = remembered
        self._seen: OrderedDict[Any, float] = OrderedDict()
        self._settled = self._until = clock()
        self._replicas = 0

    def served_by(self, replicas: int, ready: bool = True) -> None:
        """Note how many pods serve now, and whether this is one of them.

        The first number is no growth: nobody is here who could have come before. Nor is what grows before this pod is ready. One that comes right
        after that may be this pod or another one that became ready with it: as nobody can tell, those who came first are let go of all the same.
        """
        now = self._clock()
        if ready and 0 < self._replicas < replicas:
            self._settled = now + SETTLE_SECONDS
            self._until = now + WINDOW_SECONDS
        self._replicas = replicas

    def arrived(self, scope: Scope) -> None:
        """Note a request, and with the first of its connection when that one was opened."""
        client = scope.get("client")
        if client is None:
            return
        key = tuple(client)
        if key in self._seen:
            self._seen.move_to_end(key)
            return
        self._seen[key] = self._clock()
        if len(self._seen) > self._remembered:
            self._seen.popitem(last=False)

    def lets_go(self, scope: Scope) -> bool:
        """Whether the answer to this request is the last of its connection; asked once, when the answer begins."""
        if scope.get("http_version") != "1.1" or not self._settled <= self._clock() < self._until:
            return False
        client = scope.get("client")
        if client is None:
            return self._unlucky()
        key = tuple(client)
        if self._seen.get(key, self._settled) >= self._settled:
            return False
        del self._seen[key]
        return True
