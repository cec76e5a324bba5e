"""Whether a server-side apply of a child would change anything: even an apply that changes nothing is a write request.

Two questions, both asked of the live object as the API server shows it. Is everything that would be sent there already, allowing for
what the API server does to values (defaults added, empty values dropped, quantities rewritten)? And does the API server hold us for the
owner of a field that would no longer be sent, so that it would be removed?
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from graftwork import names
from graftwork.facts.quantity import quantity

# Lists that server-side apply merges by key; every other list of objects is replaced as a whole.
_KEYED: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_ATOMIC_PORTS = frozenset({"ingress", "egress"})  # of a NetworkPolicy's rule: what somebody added there goes
_KEYED_PORTS = (("containerPort", "protocol"), ("port", "protocol"))
_KEY_DEFAULTS = {"protocol": "TCP"}
_QUANTITY_MAPS = frozenset({"limits", "requests", "capacity", "hard"})
_QUANTITY_FIELDS = frozenset({"sizeLimit", "divisor"})
_Fields = Mapping[str, Any]
"""A node of a managed field set (fieldsV1). Without children it stands for the whole value."""


def needs_apply(desired: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Return whether applying `desired` would change `live`."""
    owned = _owned_fields(live)
    if owned is None:
        return True  # never applied by us: make us the owner of what we send
    described = {key: value for key, value in desired.items() if key not in ("apiVersion", "kind")}
    return not _contains(described, live, (), owned) or _drops_owned(owned, desired)


# --- is everything there?


def _contains(want: Any, have: Any, path: tuple[str, ...], owned: _Fields | None) -> bool:
    """Return whether `have` is what the API server makes of `want`; `owned` are our fields below this one (None: the value is not ours)."""
    if isinstance(want, Mapping):
        if have is not None and not isinstance(have, Mapping):
            return False
        return all(_contains(child, (have or {}).get(key), (*path, key), _below(owned, f"f:{key}")) for key, child in want.items())
    if isinstance(want, list | tuple):
        return _contains_list(want, have or [], path, owned)
    if want is None:
        return True  # as if it were not sent; whether it must go is the other question
    if have is None:
        return not want and owned is not None  # "", 0 and false are not shown; that we own them tells that they were sent
    return bool(want == have) or _same_quantity(want, have, path)


def _contains_list(want: Sequence[Any], have: Sequence[Any], path: tuple[str, ...], owned: _Fields | None) -> bool:
    keys = _keys_of(want, path)
    if keys is None:
        return len(want) == len(have) and all(_contains(left, right, path, owned) for left, right in zip(want, have, strict=True))
    by_key = {_key(item, keys): (position, item) for position, item in enumerate(have)}
    last = -1
    for item in want:
        position, match = by_key.get(_key(item, keys), (-1, None))
        if position <= last or not _contains(item, match, path, _item_fields(owned, item)):
            return False  # missing, different, or in another order than ours (init containers run in order)
        last = position
    return True


def _below(owned: _Fields | None, step: str) -> _Fields | None:
    if owned is None or not owned:
        return owned
    below: _Fields | None = owned.get(step)
    return below


def _item_fields(owned: _Fields | None, item: Mapping[str, Any]) -> _Fields | None:
    if owned is None or not owned:
        return owned
    return next((below for step, below in owned.items() if step.startswith("k:") and _matches(item, json.loads(step[2:]))), None)


def _keys_of(items: Sequence[Any], path: tuple[str, ...]) -> tuple[str, ...] | None:
    if not items or not all(isinstance(item, Mapping) for item in items):
        return None
    name = path[-1] if path else ""
    if name == "ports" and len(path) > 1 and path[-2] in _ATOMIC_PORTS:
        return None
    if name == "ports":
        return next((keys for keys in _KEYED_PORTS if keys[0] in items[0]), None)
    keys = _KEYED.get(name)
    return keys if keys and all(keys[0] in item for item in items) else None


def _key(item: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(key, _KEY_DEFAULTS.get(key)) for key in keys)


def _same_quantity(want: Any, have: Any, path: tuple[str, ...]) -> bool:
    if not (path and (path[-1] in _QUANTITY_FIELDS or (len(path) > 1 and path[-2] in _QUANTITY_MAPS))):
        return False
    left, right = quantity(want), quantity(have)
    return left is not None and left == right


# --- would a field of ours go?


def _owned_fields(live: Mapping[str, Any]) -> _Fields | None:
    for entry in live["metadata"].get("managedFields") or []:
        if entry.get("manager") == names.FIELD_MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource"):
            fields: _Fields = entry.get("fieldsV1") or {}
            return fields
    return None


def _drops_owned(owned: _Fields, desired: Any) -> bool:
    """Return whether the field set names something that `desired` does not have."""
    for step, below in owned.items():
        if step == ".":
            continue
        child = _at(step, desired)
        if child is None or (below and _drops_owned(below, child)):
            return True
    return False


def _at(step: str, value: Any) -> Any:
    """Return the part of a value that one step of a field set (`f:name`, `k:{keys}`, `v:value`, `i:index`) leads to; None if there is none."""
    marker, _, rest = step.partition(":")
    if marker == "f":
        return value.get(rest) if isinstance(value, Mapping) else None
    if not isinstance(value, list | tuple):
        return None
    wanted = json.loads(rest)
    if marker == "k":
        return next((item for item in value if _matches(item, wanted)), None)
    if marker == "i":
        return value[wanted] if wanted < len(value) else None
    return wanted if wanted in value else None


def _matches(item: Any, keys: Mapping[str, Any]) -> bool:
    return isinstance(item, Mapping) and all(item.get(key, _KEY_DEFAULTS.get(key)) == value for key, value in keys.items())
