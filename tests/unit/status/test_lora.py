from __future__ import annotations

from typing import Any

import pytest
from graftwork.api.status import LoRAAdapterStatus
from graftwork.facts.adapters import Decision
from graftwork.facts.problem import Problem
from graftwork.reasons import Reason
from graftwork.status.lora import Observed, Place, status

from tests.unit.status.seen import NOW, adapter, condition, message

EIGHT = adapter()
OFFERED = Decision(EIGHT, True)


def see(*places: Place, problem: Problem | None = None, before: dict[str, Any] | None = None) -> dict[str, Any]:
    found = status(Observed(1, EIGHT, places, problem, before or {}, NOW))
    LoRAAdapterStatus.model_validate(found)
    return found


def no(reason: Reason) -> Place:
    return Place("other", Decision(EIGHT, False, reason, f"because {reason}"), 0, 0)


@pytest.mark.parametrize(
    ("places", "ready", "stalled", "text"),
    [
        ((), ("False", "NoDeployment"), False, "0/0"),
        ((Place("support", OFFERED, 2, 2),), ("True", "Loaded"), False, "2/2"),
        ((Place("support", OFFERED, 1, 2),), ("False", "Loading"), False, "1/2"),
        ((Place("support", OFFERED, 0, 0),), ("False", "Loading"), False, "0/0"),
        ((Place("support", OFFERED, 2, 2), no(Reason.BASE_MISMATCH)), ("True", "Loaded"), False, "2/2"),
        ((no(Reason.BASE_MISMATCH),), ("False", "BaseMismatch"), True, "0/0"),
        ((no(Reason.RANK_TOO_HIGH),), ("False", "RankTooHigh"), True, "0/0"),
        ((no(Reason.SUPERSEDED), no(Reason.BASE_MISMATCH)), ("False", "Superseded"), False, "0/0"),
        ((no(Reason.LOADING),), ("False", "Loading"), False, "0/0"),
        ((Place("support", OFFERED, 0, 2, Problem(Reason.NOT_FINITE, "NaN in q_proj")),), ("False", "NotFinite"), True, "0/2"),
        (
            (Place("support", OFFERED, 0, 2, Problem(Reason.STORE_UNREACHABLE, "down", needs_user=False)),),
            ("False", "StoreUnreachable"),
            False,
            "0/2",
        ),
        ((Place("support", OFFERED, 1, 2, silent=("p2",)),), ("Unknown", "AgentUnreachable"), False, "1/2"),
    ],
)
def test_an_adapter_says_where_it_is_loaded_or_why_not(places: tuple[Place, ...], ready: tuple[str, str], stalled: bool, text: str) -> None:
    found = see(*places)
    assert condition(found, "Ready") == ready
    assert condition(found, "Stalled")[0] == str(stalled)
    assert found["loadedText"] == text


def test_a_refusal_is_quoted() -> None:
    assert message(see(no(Reason.ALIAS_TAKEN)), "Stalled") == "because AliasTaken"


def test_a_settling_agent_changes_nothing() -> None:
    before = see(Place("support", OFFERED, 2, 2))
    assert see(Place("support", OFFERED, 0, 2, silent=("p1", "p2"), settling=True), before=before) == before
