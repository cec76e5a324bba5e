"""The four shapes of one training example: checked line by line, and brought into one form. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """One example in the form that training takes.

    A conversation (`messages`, rendered with the model's chat template; every assistant turn is learned), or plain text: `prompt` is
    read, `completion` is learned.
    """

    messages: tuple[Message, ...] = ()
    prompt: str = ""
    completion: str = ""


class LineError(ValueError):
    """A line that is not an example; the text says what was expected and what was found."""


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _text(record: Mapping[str, Any], key: str, where: str = "", *, may_be_empty: bool = False) -> str:
    """Return the text under `key`; raise LineError when it is absent, of another type, empty or not encodable."""
    name = f"{where}{key}"
    if key not in record:
        raise LineError(f'expected "{name}" (a text), found no such key')
    value = record[key]
    if not isinstance(value, str):
        raise LineError(f'expected "{name}" to be a text, found {_kind(value)}')
    if not may_be_empty and not value.strip():
        raise LineError(f'expected "{name}" to have content, found an empty text')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair; no tokenizer can read it.
        raise LineError(f'expected "{name}" to be Unicode text, found half of a surrogate pair at character {error.start + 1}') from None
    return value


def _messages(record: Mapping[str, Any]) -> Example:
    turns = record.get("messages")
    if not isinstance(turns, list) or not turns:
        raise LineError(
            f'expected "messages" to be a list of {{"role", "content"}} objects, found {"an empty list" if turns == [] else _kind(turns)}'
        )
    messages = tuple(_message(turn, number) for number, turn in enumerate(turns))
    for number, message in enumerate(messages):
        _check_turn(message, messages[number - 1] if number else None, number)
    if messages[-1].role != "assistant":
        raise LineError(f'expected the last message to be the assistant\'s answer, found role "{messages[-1].role}"')
    return Example(messages=messages)


def _message(turn: object, number: int) -> Message:
    where = f"messages[{number}]."
    if not isinstance(turn, dict):
        raise LineError(f'expected "messages[{number}]" to be an object with "role" and "content", found {_kind(turn)}')
    role = _text(turn, "role", where)
    if role not in ROLES:
        raise LineError(f'expected "{where}role" to be one of {", ".join(ROLES)}, found "{role[:40]}"')
    return Message(role, _text(turn, "content", where))


def _check_turn(message: Message, before: Message | None, number: int) -> None:
    """Refuse an order of roles that chat templates refuse or render differently from what is served."""
    if message.role == "system" and before is not None:
        raise LineError(f'expected "system" only as the first message, found it as messages[{number}]')
    if message.role == "assistant" and (before is None or before.role == "system"):
        raise LineError(f"expected a user message before the assistant's, found messages[{number}] without one")
    if before is not None and message.role == before.role:
        raise LineError(f'expected user and assistant to alternate, found "{message.role}" twice in a row at messages[{number}]; join the two')


def _instruct(record: Mapping[str, Any]) -> Example:
    instruction, answer = _text(record, "instruction"), _text(record, "output")
    context = _text(record, "input", may_be_empty=True) if record.get("input") is not None else ""
    question = f"{instruction}\n\n{context}" if context.strip() else instruction
    return Example(messages=(Message("user", question), Message("assistant", answer)))


def _prompt_completion(record: Mapping[str, Any]) -> Example:
    return Example(prompt=_text(record, "prompt"), completion=_text(record, "completion"))


def _plain_text(record: Mapping[str, Any]) -> Example:
    return Example(completion=_text(record, "text"))


@dataclass(frozen=True)
class Format:
    """A shape of example: the keys by which it is recognised, how it is spelled, and its check."""

    name: str
    keys: tuple[str, ...]
    spelling: str
    parse: Callable[[Mapping[str, Any]], Example]
    conversation: bool


FORMATS = {
    form.name: form
    for form in (
        Format(
            "messages", ("messages",), '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}', _messages, True
        ),
        Format("instruct", ("instruction", "output"), '{"instruction": "...", "input": "", "output": "..."}', _instruct, True),
        Format("prompt_completion", ("prompt", "completion"), '{"prompt": "...", "completion": "..."}', _prompt_completion, False),
        Format("text", ("text",), '{"text": "..."}', _plain_text, False),
    )
}


def detect(record: object) -> Format | None:
    """Return the format whose keys `record` has, or None; the order of FORMATS decides when several fit."""
    if not isinstance(record, dict):
        return None
    return next((form for form in FORMATS.values() if all(key in record for key in form.keys)), None)


def parse_record(record: object, form: Format) -> Example:
    """Return the example that `record` (one decoded JSON value) is in `form`; raises LineError."""
    if not isinstance(record, dict):
        raise LineError(f"expected a JSON object like {form.spelling}, found {_kind(record)}")
    missing = [key for key in form.keys if key not in record]
    if missing:
        keys = ", ".join(f'"{str(key)[:40]}"' for key in list(record)[:8]) or "none"
        raise LineError(f"expected an object like {form.spelling}, found the keys {keys}")
    return form.parse(record)
