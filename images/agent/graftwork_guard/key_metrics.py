"""What each key asked for, in Prometheus' text format. The label is the key's name in the Secret; there are as many as there are keys now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from graftwork_guard.bodies import Usage
from graftwork_guard.metrics import family, label, sample


@dataclass(slots=True)
class KeySeries:
    """The numbers of one key."""

    requests: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def used(self, usage: Usage) -> None:
        """Count an answer's tokens."""
        self.tokens["prompt"] += usage.prompt
        self.tokens["completion"] += usage.completion


def render(series: Mapping[str, KeySeries]) -> bytes:
    """Return the exposition; nothing where there are no keys."""
    if not series:
        return b""
    items = [(label("key", name), one) for name, one in series.items()]
    lines = [
        *family("graftwork_key_requests_total", "counter", "Inference requests that were let in, by the name of their API key."),
        *(sample("graftwork_key_requests_total", labels, one.requests) for labels, one in items),
        *family("graftwork_key_tokens_total", "counter", "Tokens as reported in answers, by the name of the API key."),
        *(sample("graftwork_key_tokens_total", f"{labels},{label('kind', kind)}", n) for labels, one in items for kind, n in one.tokens.items()),
        *family("graftwork_key_refused_total", "counter", "Requests refused with 429, by the name of the API key and the limit that was used up."),
        *(sample("graftwork_key_refused_total", f"{labels},{label('limit', limit)}", n) for labels, one in items for limit, n in one.refused.items()),
    ]
    return "".join(f"{line}\n" for line in lines).encode()
