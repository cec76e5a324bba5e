"""Something that is wrong, in the words that go into a condition."""

from __future__ import annotations

from dataclasses import dataclass

from graftwork.reasons import Reason


@dataclass(frozen=True)
class Problem:
    """A reason of the closed list and a message that names field, value, rule and remedy.

    `needs_user` is False where waiting can help (a source that does not answer, a pod without a node): such a problem never stalls.
    """

    reason: Reason
    message: str
    needs_user: bool = True
