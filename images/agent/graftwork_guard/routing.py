"""The map from public names to the engine's, and what it decides for one request. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from graftwork_guard.choice import Draw, draw_number, takes_candidate

API_VERSION = "graftwork.dev/routing/v1"
RELOAD_SECONDS = 2  # in which the agent loads again what was unloaded by hand
ECHOED_NAME_LENGTH = 100  # a client's own text in an error: enough to recognise it, too little to make answers large

_ALIAS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_ENGINE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?--[0-9a-f]{12}")


class RoutingError(Exception):
    """A routing document breaks the contract; the text names field, value and rule."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """An alias that exists and has no loaded adapter yet."""

    reason: str
    retry_after_seconds: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """The version that a share of an alias's requests is tried on: `weight` of a hundred."""

    engine: str
    weight: int


@dataclass(frozen=True, slots=True)
class Routing:
    """The whole map. A request is decided by the one that holds at that moment; maps are replaced, never changed.

    `versions` has the text of `spec.version` by engine adapter; `instance` is the process that the map is meant for, "" for whichever reads it.
    """

    base: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    unavailable: Mapping[str, Unavailable] = field(default_factory=dict)
    ready: bool = False
    candidates: Mapping[str, Candidate] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    replicas: int = 1
    instance: str = ""
    engine_names: frozenset[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        # Asked at the end of many requests, so it is made once.
        names = frozenset(self.aliases.values()) | {candidate.engine for candidate in self.candidates.values()}
        object.__setattr__(self, "engine_names", names)

    def target(self, alias: str, engine: str) -> Target:
        """Return where requests for an alias go that this engine adapter answers."""
        return Target(alias, engine, self.versions.get(engine, ""))

    def targets(self) -> list[Target]:
        """Return everything that the map sends requests to: the base, each alias's version, each candidate."""
        stable = [self.target(alias, engine) for alias, engine in self.aliases.items()]
        tried = [self.target(alias, candidate.engine) for alias, candidate in self.candidates.items()]
        return [Target(self.base), *stable, *tried]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: `public` is what the client reads as `model`, `engine` what the engine is told ("" for the base).

    `version` is for the metrics: "" for the base, and where the map does not tell.
    """

    public: str
    engine: str = ""
    version: str = ""

    @property
    def digest(self) -> str:
        """The short digest in the engine's name; "" for the base."""
        return self.engine.rpartition("--")[2]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not sent to the engine."""

    status: int
    type: str
    message: str
    param: str | None = None
    retry_after_seconds: int | None = None
    code: str = ""  # in place of the status, where OpenAI's clients know a word
    messages_type: str = ""  # the type in the messages API, where its clients know another word
    headers: tuple[tuple[bytes, bytes], ...] = ()


NO_ROUTING = Refusal(503, "ServiceUnavailableError", "This replica is starting: its models are not known yet.", retry_after_seconds=5)


def parse(document: object, served_name: str = "") -> Routing:
    """Return the map that the agent sent; raise RoutingError.

    `served_name` is the base's name in this engine. It wins over the document's, which already has the new one while pods of the old are served
    out: this engine would answer 404 to that.
    """
    if not isinstance(document, dict):
        raise RoutingError("the body is not a JSON object; send a document of docs/design/schemas/routing.schema.json")
    if document.get("apiVersion") != API_VERSION:
        raise RoutingError(f"apiVersion is {document.get('apiVersion')!r}; this guard reads {API_VERSION!r}")
    base, ready = document.get("base"), document.get("ready")
    if not isinstance(base, str) or not base:
        raise RoutingError(f"base is {base!r}; it must be the served name of the base model")
    if not isinstance(ready, bool):
        raise RoutingError(f"ready is {ready!r}; it must be true or false")
    instance = document.get("instance", "")
    if not isinstance(instance, str) or ("instance" in document and not instance):
        raise RoutingError(f"instance is {instance!r}; it must be the name of the engine process that is meant, or be absent")
    aliases, unavailable = _aliases(document.get("aliases")), _unavailable(document.get("unavailable"))
    return Routing(
        served_name or base,
        aliases,
        unavailable,
        ready,
        candidates=_candidates(document.get("candidates", {}), aliases.keys() | unavailable.keys()),
        versions=_versions(document.get("versions", {})),
        replicas=_replicas(document.get("replicas", 1)),
        instance=instance,
    )


def _aliases(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise RoutingError(f"aliases is {value!r}; it must be an object of alias -> engine adapter name")
    for alias, engine in value.items():
        _check_alias("aliases", alias)
        if not isinstance(engine, str) or not _ENGINE.fullmatch(engine):
            raise RoutingError(f"aliases[{alias!r}] is {engine!r}; it must be an engine adapter name: <alias>--<12 hex>")
    return dict(value)


def _unavailable(value: object) -> dict[str, Unavailable]:
    if not isinstance(value, dict):
        raise RoutingError(f"unavailable is {value!r}; it must be an object of alias -> {{reason, retryAfterSeconds}}")
    found: dict[str, Unavailable] = {}
    for alias, entry in value.items():
        _check_alias("unavailable", alias)
        reason = entry.get("reason") if isinstance(entry, dict) else None
        seconds = entry.get("retryAfterSeconds") if isinstance(entry, dict) else None
        if not isinstance(reason, str) or type(seconds) is not int or seconds < 1:
            raise RoutingError(f"unavailable[{alias!r}] is {entry!r}; it needs reason (text) and retryAfterSeconds (a whole number >= 1)")
        found[alias] = Unavailable(reason, seconds)
    return found


def _candidates(value: object, known: set[str]) -> dict[str, Candidate]:
    if not isinstance(value, dict):
        raise RoutingError(f"candidates is {value!r}; it must be an object of alias -> {{engine, weight}}")
    found: dict[str, Candidate] = {}
    for alias, entry in value.items():
        _check_alias("candidates", alias)
        engine = entry.get("engine") if isinstance(entry, dict) else None
        weight = entry.get("weight") if isinstance(entry, dict) else None
        if not isinstance(engine, str) or not _ENGINE.fullmatch(engine):
            raise RoutingError(f"candidates[{alias!r}] is {entry!r}; its engine must be an engine adapter name: <alias>--<12 hex>")
        if type(weight) is not int or not 0 <= weight <= 100:
            raise RoutingError(f"candidates[{alias!r}] is {entry!r}; its weight must be a whole number from 0 to 100")
        if alias not in known:
            raise RoutingError(f"candidates[{alias!r}] is {entry!r}; its alias must be in aliases or in unavailable, which say where the rest goes")
        found[alias] = Candidate(engine, weight)
    return found


def _versions(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise RoutingError(f"versions is {value!r}; it must be an object of engine adapter name -> spec.version")
    for engine, version in value.items():
        if not isinstance(engine, str) or not _ENGINE.fullmatch(engine):
            raise RoutingError(f"versions has {engine!r}; it must be an engine adapter name: <alias>--<12 hex>")
        if type(version) is not int or version < 1:
            raise RoutingError(f"versions[{engine!r}] is {version!r}; it must be a whole number >= 1")
    return {engine: str(version) for engine, version in value.items()}


def _replicas(value: object) -> int:
    if type(value) is not int or value < 1:
        raise RoutingError(f"replicas is {value!r}; it must be a whole number >= 1")
    return value


def _check_alias(where: str, alias: object) -> None:
    if not isinstance(alias, str) or len(alias) > 40 or "--" in alias or not _ALIAS.fullmatch(alias):
        raise RoutingError(f"{where} has {alias!r}; an alias has at most 40 lower-case letters, digits and single inner hyphens")


def no_session() -> bytes:
    """Return what stands for no session."""
    return b""


def decide(routing: Routing | None, model: object, session: Callable[[], bytes] = no_session, draw: Draw = draw_number) -> Target | Refusal:
    """Return where a request goes whose body has this `model`. `session` is asked only where two versions answer.

    Missing, null and empty mean the base, as in the engine. What is not text at all also goes there: the engine refuses it in its own words.
    """
    if routing is None:
        return NO_ROUTING
    if not isinstance(model, str) or model in ("", routing.base):
        return Target(routing.base)
    candidate = routing.candidates.get(model)
    if candidate is not None and takes_candidate(candidate.weight, model, session(), draw):
        return routing.target(model, candidate.engine)
    engine = routing.aliases.get(model)
    if engine is not None:
        return routing.target(model, engine)
    waiting = routing.unavailable.get(model)
    if waiting is not None:
        text = f"The model `{model}` is not available on this replica yet ({waiting.reason}); try again in {waiting.retry_after_seconds} s."
        return Refusal(503, "ServiceUnavailableError", text, "model", waiting.retry_after_seconds)
    return unknown_model(model)


def adapter_gone(model: str) -> Refusal:
    """Return the refusal of an alias whose adapter was unloaded behind the agent's back: it comes back within seconds."""
    text = f"The model `{model}` is not available on this replica at the moment; try again in {RELOAD_SECONDS} s."
    return Refusal(503, "ServiceUnavailableError", text, "model", RELOAD_SECONDS)


def unknown_model(model: object) -> Refusal:
    """Return the refusal of a name that nothing answers to, or that its client may not know of."""
    return Refusal(404, "NotFoundError", f"The model `{_shortened(model if isinstance(model, str) else '')}` does not exist.", "model")


def _shortened(name: str) -> str:
    return name if len(name) <= ECHOED_NAME_LENGTH else f"{name[:ECHOED_NAME_LENGTH]}…"


def error_document(refusal: Refusal, messages_api: bool) -> dict[str, object]:
    """Return the body that tells a client why: in OpenAI's shape, or in that of the messages API."""
    if messages_api:
        return {"type": "error", "error": {"type": refusal.messages_type or refusal.type, "message": refusal.message}}
    return {"error": {"message": refusal.message, "type": refusal.type, "param": refusal.param, "code": refusal.code or refusal.status}}
