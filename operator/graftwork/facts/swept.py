"""The last word of a sweep (contracts.md, section 7b)."""

from __future__ import annotations

from graftwork import contracts
from graftwork.facts.text import clip, last_line
from graftwork.reasons import Reason, known


def waiting(message: str) -> int | None:
    """Return how many folders a sweep found that are not to be removed yet; None if it does not say."""
    try:
        found = contracts.parse(contracts.SWEEP_RESULT, message.encode()).get("waiting")
    except contracts.ContractError:
        return None
    return found if isinstance(found, int) else None


def reason(message: str) -> Reason | None:
    """Return the reason that a sweep gives, if it is one of the closed list."""
    try:
        found = contracts.parse(contracts.SWEEP_RESULT, message.encode()).get("reason")
    except contracts.ContractError:
        return None
    return known(found)


def words(message: str) -> str:
    """Return what a sweep says of itself, on one line."""
    try:
        found = contracts.parse(contracts.SWEEP_RESULT, message.encode())
    except contracts.ContractError:
        return last_line(message)
    removed = (
        f"{found.get('removed', 0)} removed ({found.get('removedBytes', 0)} bytes), {found.get('waiting', 0)} waiting, {found.get('kept', 0)} kept"
    )
    return clip(f"{found['reason']}: {found['message'] or removed}")
