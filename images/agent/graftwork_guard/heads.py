"""A bound on what a connection may send before the guard is asked: uvicorn with httptools reads heads and trailers of any length.

vLLM's `--h11-max-…` flags bound another parser, which it does not run. vLLM 0.32 keeps its server in the application's state: there it is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graftwork_guard.asgi import Scope
from graftwork_guard.settings import LOG

PARSER = "HttpToolsProtocol"
_HEAD = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
_BODY = b'{"error":{"message":"The request\'s headers are larger than %d bytes.","type":"BadRequestError","param":null,"code":431}}'

if TYPE_CHECKING:

    class _HttpTools:
        """What is used of uvicorn's protocol."""

        transport: Any
        cycle: Any
        pipeline: Any

        def data_received(self, data: bytes) -> None: ...
        def on_message_begin(self) -> None: ...
        def on_header(self, name: bytes, value: bytes) -> None: ...
        def on_headers_complete(self) -> None: ...
        def on_body(self, body: bytes) -> None: ...
        def on_message_complete(self) -> None: ...

else:
    _HttpTools = object


class Bounds(_HttpTools):
    """Comes before uvicorn's protocol: counts what was read since something last came to its end, a head, a piece of a body or a message.

    Trailers are left out. Nobody reads them, and uvicorn would append them to the headers of a request that was judged before they came.
    """

    limit = 0
    _unfinished = 0
    _progress = False
    _in_body = False

    def data_received(self, data: bytes) -> None:
        """Take what was read; end the connection if it leads nowhere. One read, 256 KiB at most, may come on top of the limit."""
        self._progress = False
        super().data_received(data)
        self._unfinished = 0 if self._progress else self._unfinished + len(data)
        if self._unfinished > self.limit and not self.transport.is_closing():
            self._cut_off()

    def on_message_begin(self) -> None:
        """Expect a head."""
        self._in_body = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, and no trailer."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Expect a body."""
        self._progress = self._in_body = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, which has a limit of its own."""
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._progress = True
        super().on_message_complete()

    def _cut_off(self) -> None:
        """End the connection, with an answer unless it would be taken for that of an earlier request, or fall into one that has begun."""
        nothing_runs = self.cycle is None or self.cycle.response_complete
        if nothing_runs or (self._in_body and not self.cycle.response_started and not self.pipeline):
            body = _BODY % self.limit
            self.transport.write(_HEAD % len(body) + body)
        self.transport.close()


def bounded(protocol: type, limit: int) -> type:
    """Return uvicorn's protocol for httptools with the bounds before it."""
    return type("Bounded", (Bounds, protocol), {"limit": limit})


def bound_heads(scope: Scope, limit: int) -> None:
    """Let the server that runs this application use them. Called while the application starts, before the first connection.

    Where the server is not found, or is another, its own limits hold.
    """
    config = getattr(getattr(getattr(scope.get("app"), "state", None), "server", None), "config", None)
    protocol = getattr(config, "http_protocol_class", None)
    if config is not None and isinstance(protocol, type) and protocol.__name__ == PARSER:
        config.http_protocol_class = bounded(protocol, limit)
    else:
        LOG.warning("the heads of requests are bounded by the server alone, which has %r and not uvicorn's %s", protocol, PARSER)
