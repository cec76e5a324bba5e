"""What a request holds, and what the engine is sent in its place: its own name of the model, the key's salt, the wish for usage. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from graftwork_guard import bodies, usage
from graftwork_guard.access import Visit
from graftwork_guard.asgi import Headers
from graftwork_guard.forms import Form, parse_form
from graftwork_guard.routes import Route
from graftwork_guard.routing import Target
from graftwork_guard.usage import Wanted


@dataclass(frozen=True, slots=True)
class Request:
    """A body as its route takes it: a JSON object, or a form, or neither: then it is passed on, and the engine says better what is wrong with it."""

    body: bytes
    document: dict[str, Any] | None = None
    form: Form | None = None

    @property
    def model(self) -> object:
        """The model that it names, be it no text."""
        return self.form.model if self.form is not None else bodies.field(self.document, "model")

    @property
    def user(self) -> object:
        """The user that it names."""
        return self.form.user if self.form is not None else bodies.field(self.document, "user")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """The engine's request. `encode` may take long; `hide_usage`: the client is not the one who asked for the usage; `wanted`: see there."""

    encode: Callable[[], bytes]
    hide_usage: bool = False
    wanted: Wanted | None = None


def parse(route: Route, headers: Headers, body: bytes) -> Request:
    """Return what a body holds; raise FormError and TooDeepError."""
    if route.form:
        return Request(body, form=parse_form([value for name, value in headers if name == b"content-type"], body))
    return Request(body, bodies.parse_request(body))


def outgoing(request: Request, route: Route, visit: Visit, target: Target) -> Outgoing:
    """Return what the engine is sent for a request that goes to `target`."""
    if request.form is not None:
        return Outgoing(partial(request.form.encode, target), request.form.unreported)
    if request.document is None:
        return Outgoing(lambda: request.body)
    document, hide_usage = visit.salted(request.document), False
    wanted = usage.wanted(document, route.generates) if route.generates and visit.key else None
    if route.stream_usage:
        document, hide_usage = usage.asked(document)
    elif route.bytes_usage:
        document, hide_usage = usage.asked_in_bytes(document)
    return Outgoing(lambda: bodies.encode_request(document, target), hide_usage, wanted)
