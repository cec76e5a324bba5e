"""Equal parts of objects, held once.

What three hundred deployments and their pods are made of differs in a few names: probes, mounts, environments, security contexts and field sets are
the same again and again, and as dictionaries they take ten times their text. Every part that was seen lately is kept by what it consists of, and
whoever brings an equal one gets that.
"""

from __future__ import annotations

from typing import Any

LATELY = 4096
LONG = 512
"""A text of more characters is left alone, with what it is a part of: such a text is hardly ever met twice, and must not be held for nothing."""
_ALONE = object()


class Sharing:
    """Knows the parts that came up lately: a few thousand. One that nobody brings again is forgotten, and with its last holder it is gone."""

    def __init__(self, lately: int = LATELY) -> None:
        self._lately = lately
        self._young: dict[Any, Any] = {}
        self._old: dict[Any, Any] = {}

    def shared(self, value: Any) -> Any:
        """Return an equal value of the same types, whose parts are those of equal values that were brought before; never change it."""
        return self._share(value)[0]

    def _share(self, value: Any) -> tuple[Any, Any]:
        """Return the value, and what tells it from every other: a text itself, a container's id (what holds the id holds it too), or type and value.

        1, 1.0 and True are equal to Python and three things in an object.
        """
        kind = type(value)
        if kind is str:
            return (value, _ALONE) if len(value) > LONG else (self._first(value, value), value)
        if kind is dict:
            parts = [(key, *self._share(child)) for key, child in value.items()]
            made: Any = {self._first(key, key): child for key, child, _ in parts}
            tokens = [dict, *made, *[token for _, _, token in parts]]
        elif kind is list:
            shared = [self._share(child) for child in value]
            made = [child for child, _ in shared]
            tokens = [list, *[token for _, token in shared]]
        else:
            return value, (kind, value)
        if _ALONE in tokens:
            return made, _ALONE
        first = self._first(tuple(tokens), made)
        return first, id(first)

    def _first(self, key: Any, value: Any) -> Any:
        """Return what was brought first under the key."""
        known = self._young.get(key)
        if known is not None:
            return known
        known = self._old.get(key)
        if known is None:
            known = value
        self._young[key] = known
        if len(self._young) > self._lately:
            self._old, self._young = self._young, {}
        return known
