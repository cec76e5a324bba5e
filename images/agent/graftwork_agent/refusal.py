"""An adapter that must not reach the engine."""

from __future__ import annotations

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
        super().__init__(message)
        self.reason = reason
        self.message = message
