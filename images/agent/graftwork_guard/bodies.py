"""Request and answer bodies that are whole: reading what a request asks for, and giving an answer its public name. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graftwork_guard import scan
from graftwork_guard.routing import Routing, Target

# Above this many bytes a body is read in a thread. The standard library's parser holds the interpreter's lock between two objects only, so a thread
# shortens how long others wait but cannot end it; one long string (a prompt, an image) is read at about 1 GB/s either way.
LARGE_BYTES = 64 * 1024


class TooDeepError(Exception):
    """The JSON is nested deeper than the parser goes."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer, as the engine counted them."""

    prompt: int = 0
    completion: int = 0


def parse_request(body: bytes) -> dict[str, Any] | None:
    """Return the body's object, or None if it is not JSON or not an object: the engine says so better.

    The parser is the one that the engine uses (encodings, NaN, the last of duplicate keys), so both read the same.
    """
    try:
        document = json.loads(body, object_pairs_hook=dict) if len(body) > LARGE_BYTES else json.loads(body)
    except RecursionError:
        raise TooDeepError from None
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def encode_request(document: dict[str, Any], target: Target) -> bytes:
    """Return the body for the engine. It is written anew even for the base, so that the engine cannot read anything that was not judged.

    ASCII only, because a lone surrogate is valid JSON and cannot be written in UTF-8.
    """
    if target.engine:
        document = {**document, "model": target.engine}
    try:
        return json.dumps(document, separators=(",", ":")).encode("ascii")
    except RecursionError:
        raise TooDeepError from None


def public_answer(body: bytes, status: int, target: Target) -> bytes:
    """Return the engine's JSON answer under the public name; errors quote names anywhere in their text, so there every mention is replaced."""
    if status >= 400:
        return without_engine_name(body, target)
    return scan.replace_text(body, ("model",), target.public)


def adapter_is_gone(body: bytes, status: int, target: Target) -> bool:
    """Whether the engine says that it does not have the adapter: somebody has unloaded it, and the pod's agent is about to load it again."""
    return status == 404 and bool(target.engine) and f"The model `{target.engine}` does not exist".encode() in body


def without_engine_name(data: bytes, target: Target) -> bytes:
    """Return text with the alias in place of the engine's name, which is plain ASCII and so never escaped."""
    return data.replace(target.engine.encode(), target.public.encode()) if target.engine else data


def public_metadata(value: bytes, target: Target) -> bytes:
    """Return the header in which an answer in bytes says what it is, with the alias for the engine's name."""
    return scan.replace_text(value, ("model",), target.public) if target.engine else value


def answer_usage(body: bytes) -> Usage | None:
    """Return the tokens that an answer reports, or None."""
    return usage_of({"usage": scan.load_value(body, ("usage",))})


def usage_of(document: dict[str, Any]) -> Usage | None:
    """Return the tokens in a parsed answer or event: at the top, or inside `response` or `message`."""
    for place in (document, document.get("response"), document.get("message")):
        usage = place.get("usage") if isinstance(place, dict) else None
        if isinstance(usage, dict):
            return Usage(_count(usage, "prompt_tokens", "input_tokens"), _count(usage, "completion_tokens", "output_tokens"))
    return None


def _count(usage: dict[str, Any], *names: str) -> int:
    return next((usage[name] for name in names if type(usage.get(name)) is int), 0)


def public_models(document: object, routing: Routing | None, served_name: str, may: Callable[[str], bool] = lambda _: True) -> dict[str, Any]:
    """Return the list of models for the outside: the base and the aliases that answer now, without the engine's names and paths.

    `may` says which of them the client is allowed to ask.
    """
    cards = document.get("data") if isinstance(document, dict) else None
    by_id = {card["id"]: card for card in (cards if isinstance(cards, list) else []) if isinstance(card, dict) and isinstance(card.get("id"), str)}
    base = routing.base if routing else served_name or next(iter(by_id), "")
    base_card = by_id.get(base, {"id": base, "object": "model", "created": 0, "owned_by": "vllm", "max_model_len": None, "permission": []})
    listed = [{**base_card, "id": base, "root": base, "parent": None}]
    for alias, engine in sorted(routing.aliases.items() if routing else ()):
        listed.append({**by_id.get(engine, base_card), "id": alias, "root": alias, "parent": base})
    return {"object": "list", "data": [card for card in listed if may(str(card["id"]))]}


def field(document: dict[str, Any] | None, name: str) -> object:
    """Return a field of the request, or None where there is none to read."""
    return document.get(name) if document is not None else None
