"""Whether a server-side apply of a child would change anything: even an apply that changes nothing is a write request.

Two questions, both asked of the live object as the API server shows it. Is everything that would be sent there already, allowing for
what the API server does to values (defaults added, empty values dropped, quantities rewritten)? And does the API server hold us for the
owner of a field that would no longer be sent, so that it would be removed?
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from graftwork import names

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
_KEYED_PORTS = (("containerPort", "protocol"), ("port", "protocol"))
_KEY_DEFAULTS = {"protocol": "TCP"}
_QUANTITY_MAPS = frozenset({"limits", "requests", "capacity", "hard"})
_QUANTITY_FIELDS = frozenset({"sizeLimit", "divisor"})
_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10) ** 3, "M": Decimal(10) ** 6, "G": Decimal(10) ** 9, "T": Decimal(10) ** 12, "P": Decimal(10) ** 15, "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10, "Mi": Decimal(2) ** 20, "Gi": Decimal(2) ** 30, "Ti": Decimal(2) ** 40, "Pi": Decimal(2) ** 50, "Ei": Decimal(2) ** 60,
}  # fmt: skip


def needs_apply(desired: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Return whether applying `desired` would change `live`."""
    owned = _owned_fields(live)
    if owned is None:
        return True  # never applied by us: make us the owner of what we send
    return not _contains(desired, live, ()) or _drops_owned(owned, desired)


# --- is everything there?


def _contains(want: Any, have: Any, path: tuple[str, ...]) -> bool:
    if _is_empty(want) and _is_empty(have):
        return True
    if isinstance(want, Mapping):
        return isinstance(have, Mapping) and all(_contains(child, have.get(key), (*path, key)) for key, child in want.items())
    if isinstance(want, list | tuple):
        return isinstance(have, list) and _contains_list(want, have, path)
    return bool(want == have) or _same_quantity(want, have, path)


def _contains_list(want: Sequence[Any], have: Sequence[Any], path: tuple[str, ...]) -> bool:
    keys = _keys_of(want, path)
    if keys is None:
        return len(want) == len(have) and all(_contains(left, right, path) for left, right in zip(want, have, strict=True))
    by_key = {_key(item, keys): (position, item) for position, item in enumerate(have)}
    last = -1
    for item in want:
        position, match = by_key.get(_key(item, keys), (-1, None))
        if position <= last or not _contains(item, match, path):
            return False  # missing, different, or in another order than ours (init containers run in order)
        last = position
    return True


def _keys_of(items: Sequence[Any], path: tuple[str, ...]) -> tuple[str, ...] | None:
    if not items or not all(isinstance(item, Mapping) for item in items):
        return None
    name = path[-1] if path else ""
    if name == "ports":
        return next((keys for keys in _KEYED_PORTS if keys[0] in items[0]), None)
    keys = _KEYED.get(name)
    return keys if keys and all(keys[0] in item for item in items) else None


def _key(item: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(key, _KEY_DEFAULTS.get(key)) for key in keys)


def _is_empty(value: Any) -> bool:
    """Return whether the API server would leave the value out (`omitempty`): null, "", 0, false, {} and []; nested ones too."""
    if isinstance(value, Mapping):
        return all(child is None for child in value.values())
    return value is None or value is False or value in ("", 0) or value == []


def _same_quantity(want: Any, have: Any, path: tuple[str, ...]) -> bool:
    if not (path and (path[-1] in _QUANTITY_FIELDS or (len(path) > 1 and path[-2] in _QUANTITY_MAPS))):
        return False
    left, right = quantity(want), quantity(have)
    return left is not None and left == right


def quantity(value: Any) -> Decimal | None:
    """Return the number that a Kubernetes quantity (`500m`, `1Gi`, 2) stands for; None if it is none."""
    text = str(value).strip()
    number = text.rstrip("numkKMGTPEi") if not text[-1:].isdigit() else text
    try:
        return Decimal(number) * _SUFFIXES[text[len(number) :]]
    except (InvalidOperation, KeyError):
        return None


# --- would a field of ours go?


def _owned_fields(live: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for entry in live["metadata"].get("managedFields") or []:
        if entry.get("manager") == names.FIELD_MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource"):
            fields: Mapping[str, Any] = entry.get("fieldsV1") or {}
            return fields
    return None


def _drops_owned(fields: Mapping[str, Any], desired: Any) -> bool:
    """Return whether the field set names something that `desired` does not have."""
    for path, below in fields.items():
        marker, _, rest = path.partition(":")
        if path == ".":
            continue
        if marker == "f":
            found = isinstance(desired, Mapping) and rest in desired and desired[rest] is not None
            child = desired.get(rest) if isinstance(desired, Mapping) else None
        else:
            child = _find(marker, json.loads(rest) if marker != "i" else int(rest), desired)
            found = child is not None
        if not found or (below and _drops_owned(below, child)):
            return True
    return False


def _find(marker: str, wanted: Any, items: Any) -> Any:
    if not isinstance(items, list | tuple):
        return None
    if marker == "v":
        return wanted if wanted in items else None
    if marker == "i":
        return items[wanted] if wanted < len(items) else None
    for item in items:
        if isinstance(item, Mapping) and all(item.get(key, _KEY_DEFAULTS.get(key)) == value for key, value in wanted.items()):
            return item
    return None
