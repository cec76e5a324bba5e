from __future__ import annotations

from datetime import UTC, datetime

import pytest
from graftwork.cli.snapshot import KIND, Snapshot, take
from graftwork.cli.status import age, render

from tests.unit.cli.recorded import FOLDER, Recorded, read

NOW = datetime(2026, 11, 21, 13, tzinfo=UTC)


def snapshot(*forbidden: str, name: str = "rolling") -> Snapshot:
    recorded = Recorded(read(name), forbidden)
    return take(recorded, recorded.get(KIND, "support"))


def test_an_update_whose_new_pod_crashes_is_the_tree_that_was_reviewed() -> None:
    assert render(snapshot(), NOW) + "\n" == (FOLDER / "rolling.txt").read_text()


def test_what_the_user_may_not_read_is_said_and_the_rest_is_shown() -> None:
    text = render(snapshot("controllerrevisions", "pods"), NOW)
    assert "revisions: not shown: Error from server (Forbidden)" in text
    assert "pods: not shown: Error from server (Forbidden)" in text
    assert "legal -> legal-3" in text


def test_a_resource_that_the_operator_has_not_seen_says_so() -> None:
    bare = {"metadata": {"name": "support", "namespace": "ml"}, "spec": {"model": {"source": "pvc://models/a"}}}
    text = render(take(Recorded([]), bare), NOW)
    assert text.startswith("LLMDeployment ml/support: the operator has not seen it yet")
    assert "pods: none" in text


@pytest.mark.parametrize(
    ("since", "text"),
    [
        ("2026-11-21T12:59:48Z", "12s"),
        ("2026-11-21T12:55:00Z", "5m"),
        ("2026-11-21T10:00:00Z", "3h"),
        ("2026-11-12T12:00:00Z", "9d"),
        ("2026-11-21T13:00:05Z", "0s"),
        (None, "?"),
    ],
)
def test_ages(since: str | None, text: str) -> None:
    assert age(since, NOW) == text
