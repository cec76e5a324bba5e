"""An adapter that must not reach the engine."""

from __future__ import annotations

from graftwork_store.errors import printable

# Reasons that no retry of the same bytes can change (contracts, section 9).
FINAL_REASONS = frozenset(
    {
        "DigestMismatch",
        "FileNotAllowed",
        "ConfigInvalid",
        "Unsupported",
        "RankTooHigh",
        "BaseMismatch",
        "TensorMismatch",
        "NotFinite",
        "SourceInvalid",
    }
)


class Refusal(Exception):  # noqa: N818 - it is a verdict
    """Why an adapter is refused; the message has the numbers."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        self.message = printable(message)
        super().__init__(self.message)
