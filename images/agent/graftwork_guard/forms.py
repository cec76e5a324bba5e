"""Multipart forms, as the audio routes take them: finding the field `model` and replacing its value, with every other byte as it was. Pure.

A stream that would not report its tokens is asked to: there the form also gets the field by which vLLM 0.32 takes that wish.

The engine's parser is lenient. What two parsers could read in two ways is refused here, so that the engine cannot find another model than was judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from graftwork_guard.routing import Target
from graftwork_guard.usage import truth

MAX_PARTS = 1000  # the engine takes no more either
MAX_PART_HEADER_BYTES = 8 * 1024
STREAM, INCLUDE_USAGE, CONTINUOUS_USAGE = "stream", "stream_include_usage", "stream_continuous_usage_stats"
_SINGLE = frozenset(
    {b"model", b"user", *(name.encode() for name in (STREAM, INCLUDE_USAGE, CONTINUOUS_USAGE))}
)  # at most once: the engine takes the last

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Not ending with a backslash, which is doubled: parsers disagree on whether its second half escapes the quote.
_QUOTED = rb'"(?:[^"\\]|\\.)*(?<!\\\\)"'
_PARAMETER = rb"[ \t]*;[ \t]*(%b)=(%b|%b)" % (_TOKEN, _TOKEN, _QUOTED)
_PARAMETERS = re.compile(_PARAMETER)
_DISPOSITION = re.compile(rb"form-data((?:%b)*)[ \t]*" % _PARAMETER, re.IGNORECASE)
_HEADER = re.compile(rb"(%b):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)" % _TOKEN)
_BOUNDARY = rb"[0-9A-Za-z'()+_,./:=?-]"
_TYPE = re.compile(
    rb"multipart/form-data(?:[ \t]*;[ \t]*charset=\"?utf-8\"?)?[ \t]*;[ \t]*boundary="
    rb"(?:(%b{1,70})|\"(%b{1,70})\")(?:[ \t]*;[ \t]*charset=\"?utf-8\"?)?[ \t]*" % (_BOUNDARY, _BOUNDARY),
    re.IGNORECASE,
)


class FormError(Exception):
    """The body is no multipart form that can be read in one way only; the text names the rule."""


@dataclass(frozen=True, slots=True)
class Form:
    """A form that was read. `model` is None where it has no such field; `span` is where its value lies in the body."""

    body: bytes
    model: str | None = None
    span: tuple[int, int] = (0, 0)
    user: str | None = None
    options: Mapping[str, tuple[str, tuple[int, int]]] = field(default_factory=dict)  # how to stream: text and place of each field that is there
    boundary: bytes = field(default=b"", compare=False)

    @property
    def unreported(self) -> bool:
        """Whether it asks for a stream that would not report its tokens. What is wrong in a way that the engine refuses stays as it is."""
        return self._truth(STREAM) is True and self._truth(INCLUDE_USAGE) is False

    def _truth(self, name: str) -> bool | None:
        return truth(self.options.get(name, ("",))[0] or None)  # empty is absent, as in the engine

    def encode(self, target: Target) -> bytes:
        """Return the body for the engine: with its own name of the model, if that is an adapter, and asking a stream for its usage."""
        edits = [(self.span, target.engine.encode())] if target.engine else []
        if self.unreported:
            if INCLUDE_USAGE in self.options:
                edits.append((self.options[INCLUDE_USAGE][1], b"true"))
            else:
                head = b'--%b\r\ncontent-disposition: form-data; name="%b"\r\n\r\ntrue\r\n' % (self.boundary, INCLUDE_USAGE.encode())
                edits.append(((0, 0), head))
            if CONTINUOUS_USAGE in self.options:  # counts only with the other: left alone, it would now put numbers into every event
                edits.append((self.options[CONTINUOUS_USAGE][1], b"false"))
        if not edits:
            return self.body
        whole, parts, at = memoryview(self.body), list[bytes | memoryview](), 0  # the sound is copied once
        for (begin, end), text in sorted(edits):
            parts += [whole[at:begin], text]
            at = end
        return b"".join([*parts, whole[at:]])


@dataclass(frozen=True, slots=True)
class _Part:
    """One field: its name, whether it is a file, and where its value lies."""

    name: bytes
    is_file: bool
    start: int
    end: int


def parse_form(content_types: list[bytes], body: bytes) -> Form:
    """Return the form that a body with these `content-type` headers holds; raise FormError."""
    match = _TYPE.fullmatch(content_types[0]) if len(content_types) == 1 else None
    if match is None:
        given = b", ".join(content_types)[:200].decode("latin-1")
        raise FormError(
            f"content-type is {given!r}; it must be one multipart/form-data with a boundary of 1 to 70 characters, and no charset but utf-8"
        )
    found: dict[bytes, _Part] = {}
    for part in _parts(body, match[1] or match[2]):
        if part.name in _SINGLE:
            if part.name in found:
                raise FormError(f"the form has more than one field {part.name.decode()!r}; it must have one at most")
            found[part.name] = part
    model, user = found.pop(b"model", None), found.pop(b"user", None)
    options = {name.decode(): (_text(body, part) or "", (part.start, part.end)) for name, part in found.items()}
    span = (model.start, model.end) if model else (0, 0)
    return Form(body, _text(body, model), span, _text(body, user), options, match[1] or match[2])


def _text(body: bytes, part: _Part | None) -> str | None:
    if part is None:
        return None
    if part.is_file:
        raise FormError(f"the form's field {part.name.decode()!r} is a file; it must be text")
    try:
        return body[part.start : part.end].decode()
    except UnicodeDecodeError:
        raise FormError(f"the form's field {part.name.decode()!r} is not UTF-8") from None


def _parts(body: bytes, boundary: bytes) -> Iterator[_Part]:
    delimiter = b"\r\n--" + boundary
    if not body.startswith(delimiter[2:] + b"\r\n"):
        raise FormError("the body must begin with the boundary of its content-type")
    at = len(delimiter)
    for _ in range(MAX_PARTS):
        head_end = body.find(b"\r\n\r\n", at, at + MAX_PART_HEADER_BYTES + 4)
        if head_end < 0:
            raise FormError(f"a part's headers must end with a blank line within {MAX_PART_HEADER_BYTES} bytes")
        end = body.find(delimiter, head_end + 4)
        if end < 0:
            raise FormError("the body must end with the boundary and two hyphens")
        yield _part(body[at:head_end], head_end + 4, end)
        at = end + len(delimiter)
        mark = body[at : at + 2]
        at += 2
        if mark == b"--":
            if body[at:] not in (b"", b"\r\n"):
                raise FormError("nothing may follow the last boundary")
            return
        if mark != b"\r\n":
            raise FormError("a boundary must be followed by a line's end or by two hyphens; choose one that the values do not contain")
    raise FormError(f"a form has {MAX_PARTS} parts at most")


def _part(head: bytes, start: int, end: int) -> _Part:
    disposition: bytes | None = None
    for line in head.split(b"\r\n"):
        match = _HEADER.fullmatch(line)
        if match is None:
            raise FormError("a part's headers must be lines of `name: value`, not folded and without control characters")
        name = match[1].lower()
        if name == b"content-disposition":
            if disposition is not None:
                raise FormError("a part must have one content-disposition")
            disposition = match[2]
        elif name == b"content-transfer-encoding" and match[2].strip().lower() not in (b"7bit", b"8bit", b"binary"):
            raise FormError("a part's content-transfer-encoding must be 7bit, 8bit or binary")
    parsed = _DISPOSITION.fullmatch(disposition or b"")
    if parsed is None:
        raise FormError('a part must have `content-disposition: form-data; name="…"`, with quoted or plain values that do not end with a backslash')
    parameters = [(key.lower(), value) for key, value in _PARAMETERS.findall(parsed[1])]
    keys = [key for key, _ in parameters]
    if keys.count(b"name") != 1 or len(set(keys)) != len(keys) or any(key.startswith(b"name*") for key in keys):
        raise FormError("a part's content-disposition must have one name, not in the extended form, and nothing twice")
    name = dict(parameters)[b"name"].strip(b'"')
    if b"\\" in name:
        raise FormError("a field's name must not contain a backslash")
    return _Part(name, any(key.startswith(b"filename") for key in keys), start, end)
