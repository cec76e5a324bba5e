"""Admission: whether a request's key is known and within its limits, and what follows from the key until the answer has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from graftwork_guard.bodies import Usage
from graftwork_guard.key_metrics import KeySeries, render
from graftwork_guard.keys import CREDENTIAL_HEADERS, Key, Keyring, credential
from graftwork_guard.limits import Excess, Headers, Meter
from graftwork_guard.routing import Refusal, Routing, Target, unknown_model

_CHALLENGE = ((b"www-authenticate", b"Bearer"),)
NO_KEYS = Refusal(503, "ServiceUnavailableError", "This replica is starting: its API keys are not known yet.", retry_after_seconds=5)
MISSING_KEY = Refusal(
    401,
    "invalid_request_error",
    "No API key was given. Send it as header `Authorization: Bearer <key>`.",
    messages_type="authentication_error",
    headers=_CHALLENGE,
)
WRONG_KEY = Refusal(
    401, "invalid_request_error", "Incorrect API key.", code="invalid_api_key", messages_type="authentication_error", headers=_CHALLENGE
)
NO_METRICS = Refusal(
    403, "PermissionDeniedError", "This key may not read metrics: a scraper needs one of its own, with `metrics: true` in keys.yaml."
)
# An estimate for answers that were cut short, so that leaving early is not free: about so many bytes of text make a token.
BYTES_PER_TOKEN = 4


class Visit:
    """One request that was let in. Without a key it changes nothing and counts nothing."""

    def __init__(self, key: Key | None = None, meter: Meter | None = None, series: KeySeries | None = None, replicas: int = 1) -> None:
        self.key = key
        self._meter = meter
        self._series = series
        self._replicas = replicas
        self._reported = False

    def may(self, model: str) -> bool:
        """Whether the list of models shows this one."""
        return self.key is None or self.key.may(model)

    def permits(self, routing: Routing | None, model: object, target: Target | Refusal) -> Target | Refusal:
        """Return the decision, or for a model that the key does not have the very refusal of one that does not exist."""
        if self.key is None or routing is None:
            return target
        name = model if isinstance(model, str) and model else routing.base
        return target if self.key.may(name) else unknown_model(model)

    def salted(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return a request's body with the key's `cache_salt`."""
        return self.key.salted(document) if self.key else document

    def headers(self) -> Headers:
        """Return the headers that tell the client its limits, as of now."""
        return self._meter.headers(self._replicas) if self._meter else []

    def used(self, usage: Usage) -> None:
        """Count the tokens that the engine reported."""
        self._reported = True
        if self._meter and self._series:
            self._meter.use(usage.prompt + usage.completion)
            self._series.used(usage)

    def cut_short(self, seen: Usage | None, tokens: int, body_bytes: int) -> None:
        """Take an estimate for an answer whose client left before the engine could report, at most a minute's worth.

        `tokens` is what the answer's text was made of, as far as that is known; of the prompt only its size is.
        """
        if self._reported or not self._meter:
            return
        prompt = seen.prompt if seen and seen.prompt else body_bytes // BYTES_PER_TOKEN
        self._meter.use_estimate(prompt + max(tokens, seen.completion if seen else 0), self._replicas)

    def leave(self) -> None:
        """Note that the answer has ended."""
        if self._meter:
            self._meter.leave()


ANYBODY = Visit()


class Access:
    """The keys of this process and what each has used. Where keys are required and none have come, everybody is refused."""

    def __init__(self, *, required: bool, clock: Callable[[], float] = monotonic) -> None:
        self._required = required
        self._clock = clock
        self._keyring: Keyring | None = None
        self._meters: dict[str, Meter] = {}
        self._series: dict[str, KeySeries] = {}

    def replace(self, keyring: Keyring) -> None:
        """Take new keys; what those that stay have used goes on. Requests that were let in before end as they began."""
        self._keyring = keyring
        for memory in (self._meters, self._series):
            for name in [name for name in memory if name not in keyring.by_name]:
                del memory[name]
        for key in keyring.by_name.values():
            self._meters.setdefault(key.name, Meter(key.limits, self._clock)).limits = key.limits
            self._series.setdefault(key.name, KeySeries())

    @property
    def hidden_headers(self) -> tuple[bytes, ...]:
        """The headers that the engine does not get: a key is nobody's business but the guard's."""
        return CREDENTIAL_HEADERS if self._required or self._keyring is not None else ()

    def know(self, headers: Iterable[tuple[bytes, bytes]]) -> Key | Refusal | None:
        """Return whose request this is; None where no keys are asked for."""
        if self._keyring is None:
            return NO_KEYS if self._required else None
        given = credential(headers)
        if not given:
            return MISSING_KEY
        return self._keyring.find(given) or WRONG_KEY

    def scrape(self, headers: Iterable[tuple[bytes, bytes]]) -> Refusal | None:
        """Return why metrics are not told, or None: where keys are required, the names of keys and aliases are nobody's but a scraper's."""
        key = self.know(headers)
        if isinstance(key, Key):
            return None if key.metrics else NO_METRICS
        return key

    def enter(self, headers: Iterable[tuple[bytes, bytes]], routing: Routing | None) -> Visit | Refusal:
        """Let an inference request in and count it, or say why not. A visit has to `leave`."""
        key = self.know(headers)
        if key is None or isinstance(key, Refusal):
            return key or ANYBODY
        meter, series = self._meters[key.name], self._series[key.name]
        replicas = routing.replicas if routing else 1
        excess = meter.enter(replicas)
        if excess:
            series.refused[excess.limit] += 1
            return _too_many(excess, meter.headers(replicas))
        series.requests += 1
        return Visit(key, meter, series, replicas)

    def render(self) -> bytes:
        """Return the exposition of all keys' series."""
        return render(self._series)


def _too_many(excess: Excess, headers: Headers) -> Refusal:
    return Refusal(
        429,
        excess.limit,
        excess.message,
        code="rate_limit_exceeded",
        messages_type="rate_limit_error",
        retry_after_seconds=excess.retry_after_seconds,
        headers=tuple(headers),
    )
