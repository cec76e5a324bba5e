"""Server-sent events as they pass: cut at blank lines, given their public name, and read for tokens and errors. Pure and incremental."""

from __future__ import annotations

import json
import re

from graftwork_guard import scan
from graftwork_guard.bodies import Usage, usage_of, without_engine_name
from graftwork_guard.routes import Route
from graftwork_guard.routing import Target

_END = re.compile(rb"\r?\n\r?\n")
_DATA = re.compile(rb"^data: ?", re.MULTILINE)
_DELTA = re.compile(rb"^event: ?[^\r\n]*delta\r?$", re.MULTILINE)
_TEXT = re.compile(
    rb'"(?:content|reasoning|reasoning_content|text|delta|arguments|partial_json|thinking|refusal)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL
)
_ERROR = re.compile(rb'"error"\s*:\s*\{')
_USAGE = re.compile(rb'"usage"\s*:\s*\{')


class EventStream:
    """One answer's events. How the bytes are cut into messages on the way in makes no difference to what comes out."""

    def __init__(self, route: Route, target: Target, *, hide_usage: bool = False, measured: bool = False) -> None:
        """`hide_usage`: the engine was asked for the usage, and the client was not the one who asked. `measured`: `content_bytes` is wanted."""
        self._measured = measured
        self.content_bytes = 0
        self._hide_usage = hide_usage
        self._route = route
        self._target = target
        self._pending = bytearray()
        self._searched = 0
        self.contents = 0
        self.failed = False
        self.usage: Usage | None = None
        self.usage_is_last = False
        """Whether `usage` is of the whole answer, so that nothing follows that it does not count."""

    @property
    def content_seen(self) -> bool:
        """Whether the first token is out."""
        return self.contents > 0

    def feed(self, data: bytes) -> bytes:
        """Take what the engine sent, return the events that are complete with it."""
        self._pending += data
        done: list[bytes] = []
        begin = 0
        while match := _END.search(self._pending, max(begin, self._searched)):
            done.append(self._event(bytes(self._pending[begin : match.end()])))
            begin = self._searched = match.end()
        del self._pending[:begin]
        self._searched = max(0, len(self._pending) - 3)  # a blank line may have begun
        return b"".join(done)

    def flush(self) -> bytes:
        """Return what is left when the stream ends without a blank line."""
        rest = bytes(self._pending)
        self._pending.clear()
        self._searched = 0
        return self._event(rest) if rest else b""

    def _event(self, event: bytes) -> bytes:
        fields = _DATA.findall(event)
        if not fields:
            return event  # a comment, such as a keep-alive
        if len(fields) > 1:
            return without_engine_name(event, self._target)  # the engine writes one line; several would have to be joined to be understood
        match = _DATA.search(event)
        assert match is not None
        line_end = event.find(b"\n", match.end())
        line_end = len(event) if line_end < 0 else line_end
        head, payload, tail = event[: match.end()], event[match.end() : line_end], event[line_end:]
        if not payload.startswith(b"{"):
            return event  # [DONE]
        if _ERROR.search(payload) and self._is_error(payload):
            self.failed = True
            payload = without_engine_name(payload, self._target)
            return head + scan.replace_text(payload, self._route.stream_model, self._target.public) + tail
        if _USAGE.search(payload) and self._count(payload):
            return b""
        if not self._route.delta_events or _DELTA.search(head) is not None:
            self.contents += 1
            if self._measured:
                self.content_bytes += sum(map(len, _TEXT.findall(payload)))
        return head + scan.replace_text(payload, self._route.stream_model, self._target.public) + tail

    def _is_error(self, payload: bytes) -> bool:
        """Tell an error from content that has the word as a key: at the top, or of a failed response."""
        return any(isinstance(scan.load_value(payload, path), dict) for path in (("error",), ("response", "error")))

    def _count(self, payload: bytes) -> bool:
        """Keep the latest numbers: a stream repeats them, it does not add to them. The messages API tells the prompt first and the answer last.

        Returns whether the event is there for nothing else, and nobody but the guard has asked for it. An engine that was told to put its usage into
        every event (`--enable-force-include-usage`) does so for everybody: then the last one stays.
        """
        try:
            document = json.loads(payload)
        except (ValueError, RecursionError):
            return False
        usage = usage_of(document)
        if usage is None:
            return False
        alone = self._hide_usage and self.usage is None and document.get("choices") == []
        before = self.usage or Usage()
        self.usage = Usage(usage.prompt or before.prompt, usage.completion or before.completion)
        self.usage_is_last = document.get("choices") == [] or document.get("type") == "message_delta" or isinstance(document.get("response"), dict)
        return alone
