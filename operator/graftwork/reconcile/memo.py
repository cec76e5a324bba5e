"""Remembering what was computed from objects that have not changed.

Every LoRAAdapter of a namespace asks what its deployments serve, and that depends on all LoRAAdapters there: without a memory n of them would read
n objects each, at each change of any of them. With fifty that kept the operator so busy on slow cores that it missed to renew its Lease.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from graftwork.facts.adapters import Adapter, Selection

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(Generic[K, V]):
    """The results of the `size` keys that were asked for last. What is remembered must not be changed by whoever gets it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return what `make` returned for this key, calling it if nobody has asked for long."""
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        value = self._known[key] = make()
        if len(self._known) > self._size:
            self._known.popitem(last=False)
        return value


class Last(Generic[K, V]):
    """By key, the last result and what it was made from: made anew only from something else."""

    def __init__(self, size: int) -> None:
        self._memo: Memo[K, list[tuple[object, V]]] = Memo(size)

    def get(self, key: K, made_from: object, make: Callable[[], V]) -> V:
        """Return the result for `made_from`, which is compared by value."""
        kept = self._memo.get(key, list)
        if not kept or kept[0][0] != made_from:
            kept[:] = [(made_from, make())]
        return kept[0][1]


@dataclass(frozen=True)
class Memory:
    """What one operator process remembers of its objects: LoRAAdapters by uid and resourceVersion, what each LLMDeployment serves, recent writes."""

    adapters: Memo[tuple[str, str], Adapter | None] = field(default_factory=lambda: Memo(4096))
    selections: Last[tuple[str, str], Selection] = field(default_factory=lambda: Last(2048))
    written: Memo[str, list[float]] = field(default_factory=lambda: Memo(4096))
    """By uid, when the status was written last, by the monotonic clock; empty: not by this process."""
