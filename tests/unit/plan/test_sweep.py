from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest
from graftwork.plan import sweep
from graftwork.plan.sweep import Last

from tests.unit.runtime.fakes import CONFIG

NOW = datetime(2026, 11, 21, 13, tzinfo=UTC)
WEEK, A, B = 7 * 86_400, "sha256:" + "a" * 64, "sha256:" + "b" * 64
SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "design" / "schemas" / "sweep.schema.json").read_text())


def last(*keep: str, waiting: int | None = 0, over: bool = True, failed: bool = False, hours: float = 0) -> Last:
    return Last(1, over, failed, NOW - timedelta(hours=hours), frozenset(keep), waiting)


def hours(keep: set[str], before: Last | None, *, oldest: float | None = None, lost: bool = False, retain: int = WEEK) -> float | None:
    first = None if oldest is None else NOW - timedelta(hours=oldest)
    found = sweep.due(NOW, frozenset(keep), before, oldest=first, lost=lost, retain_seconds=retain)
    return None if found is None else found.total_seconds() / 3600


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (hours(set(), None), None),
        (hours({A}, None, oldest=2), 22),
        (hours(set(), None, lost=True), 0),
        (hours({A}, last(A, hours=5)), 19),
        (hours({A}, last(A, B, hours=5)), -5 + 1),
        (hours({A}, last(A, B), retain=0), 30 / 3600),
        (hours({A}, last(A, B), retain=86_400), 864 / 3600),
        (hours({A}, last(A, over=False, hours=5)), None),
        (hours(set(), last()), None),
        (hours(set(), last(waiting=3, hours=1)), 23),
        (hours(set(), last(waiting=3, hours=0), retain=7200), 2),
        (hours(set(), last(waiting=3), retain=0), 30 / 3600),
        (hours(set(), last(waiting=None, hours=1)), 23),
        (hours({A}, last(A, B, failed=True, hours=0.5)), 0.5),
    ],
)
def test_a_sweep_is_due_after_a_deletion_once_a_day_and_while_something_waits(found: float | None, wanted: float | None) -> None:
    assert found == (wanted if wanted is None else pytest.approx(wanted))


def test_the_job_reads_what_its_config_map_says_and_has_the_stores_credentials() -> None:
    config = CONFIG.model_copy(update={"store": CONFIG.store.model_copy(update={"url": "s3://graftwork/store"})})
    job = sweep.sweep_job("ml", 3, config)
    owner = sweep.installation(config.lease, "1b4e28ba-2fa1-11d2-883f-0016d3cca427")
    made = sweep.sweep_config_map({**job, "metadata": {**job["metadata"], "uid": "u"}}, sweep.instructions("ml", owner, {B, A}, WEEK))
    document = json.loads(made["data"]["sweep.json"])
    jsonschema.validate(document, SCHEMA)
    assert document["keep"] == [A, B]
    assert document["installation"] == "graftwork.graftwork-operator.1b4e28ba-2fa1-11d2-883f-0016d3cca427"
    assert sweep.kept(made) == {A, B}
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["volumes"][0]["configMap"]["name"] == made["metadata"]["name"] == "graftwork-sweep-3"
    assert container["args"] == ["sweep", "--instructions", "/graftwork/sweep/sweep.json"]
    assert {"name": "GRAFTWORK_STORE_URL", "value": "s3://graftwork/store"} in container["env"]
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("data", [None, {}, {"sweep.json": "{"}, {"sweep.json": "[]"}])
def test_a_spoiled_config_map_kept_nothing(data: dict[str, str] | None) -> None:
    assert sweep.kept({"data": data}) == frozenset()
