"""The engine's metrics for the outside: aliases in place of engine adapters' names, with the guard's own behind them. Pure."""

from __future__ import annotations

import re

_LORA = b"vllm:lora_requests_info{"
_LORA_LISTS = re.compile(rb'((?:running|waiting)_lora_adapters=")([^"]*)"')
_ENGINE_NAME = re.compile(rb"(?<![-a-z0-9])([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)--[0-9a-f]{12}(?![-a-z0-9])")


def public_metrics(body: bytes, base: str, own: bytes) -> bytes:
    """Return one exposition of the engine's metrics and the guard's `own`, in Prometheus' text format.

    `vllm:lora_requests_info` gains a series with every new combination of adapters and loses none; its value is the time. Only the newest is kept,
    with each alias once: routers read it, to send a request where its adapter is. `base` is a name that is never taken for an adapter's.
    """
    lines: list[bytes] = []
    names = _Names(base.encode())
    newest: tuple[float, int] | None = None  # its time and its place in `lines`
    for line in body.split(b"\n"):
        if line.startswith(_LORA):
            at = _value(line)
            if newest is None:
                newest = at, len(lines)
                lines.append(line)
            elif at >= newest[0]:
                newest = at, newest[1]
                lines[newest[1]] = line
        elif b"--" in line and not line.startswith(b"#"):
            names.add(line, lines)
        else:
            lines.append(line)
    if newest is not None:
        lines[newest[1]] = _LORA_LISTS.sub(lambda match: match[1] + names.listed(match[2]) + b'"', lines[newest[1]])
    text = b"\n".join(lines)
    if text.rstrip().endswith(b"# EOF"):  # OpenMetrics, which was not asked for and in which nothing may follow
        return text
    return text + (b"" if not text or text.endswith(b"\n") else b"\n") + own


class _Names:
    """Gives lines their public names, and adds up those that become one series by it."""

    def __init__(self, base: bytes) -> None:
        self._base = base
        self._places: dict[bytes, int] = {}

    def public(self, text: bytes) -> bytes:
        return _ENGINE_NAME.sub(lambda match: match[0] if match[0] == self._base else match[1], text)

    def listed(self, names: bytes) -> bytes:
        return b",".join(dict.fromkeys(self.public(name) for name in names.split(b",")))

    def add(self, line: bytes, lines: list[bytes]) -> None:
        public = self.public(line)
        series = public.rpartition(b" ")[0]
        place = self._places.get(series) if public != line else None
        if place is None:
            self._places[series] = len(lines)
            lines.append(public)
            return
        before, value = _value(lines[place]), _value(line)
        created = series.partition(b"{")[0].endswith(b"_created")
        lines[place] = series + b" " + repr(min(before, value) if created else before + value).encode()


def _value(line: bytes) -> float:
    try:
        return float(line.rpartition(b" ")[2])
    except ValueError:
        return 0.0
