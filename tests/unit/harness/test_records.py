"""Benchmark records: what is committed fits the schema and its table, and merging leaves other figures as they were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.harness import records
from tests.harness.records import Figure

SCHEMA = json.loads((records.ROOT / "docs/design/schemas/benchmark.schema.json").read_text())
COMMITTED = records.ROOT / "docs" / "benchmarks"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records, "FOLDER", tmp_path / "benchmarks")
    monkeypatch.setattr(records, "commit", lambda: "aaaaaaa")
    monkeypatch.setattr(records, "machine", lambda: "2 cores")
    return tmp_path / "benchmarks"


def figure(name: str, value: float, limit: float | None = None) -> Figure:
    return Figure(name, value, "s", limit, [value])


def read(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text())
    jsonschema.validate(record, SCHEMA)
    assert path.with_suffix(".md").read_text() == records.table(record)
    return record


def test_what_is_committed_fits_the_schema_and_its_table() -> None:
    for path in sorted(COMMITTED.glob("*.json")):
        assert read(path)["name"] == path.stem
    assert {path.stem for path in COMMITTED.glob("*.md")} == {path.stem for path in COMMITTED.glob("*.json")}


def test_a_figure_that_was_measured_by_another_command_keeps_what_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write("loop", "make bench-loop", [figure("load", 0.1, 0.15), figure("answer", 2, 5)])
    monkeypatch.setattr(records, "commit", lambda: "bbbbbbb")
    record = read(records.write("loop", "make bench-setup WHAT=demo-cold", [figure("cold", 900, 600)]))
    assert (record["command"], record["commit"]) == ("make bench-loop", "aaaaaaa")
    assert {each["figure"]: (each["command"], each["commit"]) for each in record["figures"]} == {
        "load": ("make bench-loop", "aaaaaaa"),
        "answer": ("make bench-loop", "aaaaaaa"),
        "cold": ("make bench-setup WHAT=demo-cold", "bbbbbbb"),
    }
    rows = records.table(record).splitlines()
    assert "| load | 0.1 s | 0.15 s | yes | 1 |  |" in rows
    assert "| cold | 900 s | 600 s | **no** | 1 | `make bench-setup WHAT=demo-cold`, commit bbbbbbb |" in rows


def test_a_figure_that_is_measured_again_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write("loop", "make bench-loop", [figure("load", 0.1), figure("answer", 2)])
    monkeypatch.setattr(records, "commit", lambda: "bbbbbbb")
    record = read(records.write("loop", "make bench-loop", [figure("load", 0.2), figure("answer", 3)]))
    assert [(each["figure"], each["value"], each["commit"]) for each in record["figures"]] == [("answer", 3, "bbbbbbb"), ("load", 0.2, "bbbbbbb")]
    assert record["commit"] == "bbbbbbb"
    assert "measured otherwise" not in records.table(record)


def test_figures_without_a_stamp_of_their_own_have_the_records() -> None:
    old = {"figure": "load", "value": 0.1, "unit": "s", "limit": None, "holds": None, "samples": [0.1]}
    before = {"name": "loop", "command": "make a", "commit": "aaaaaaa", "date": "2026-11-20", "machine": "2 cores", "figures": [old]}
    new = {**old, "figure": "cold", "command": "make b", "commit": "bbbbbbb", "date": "2026-11-21", "machine": "4 cores"}
    record = records.merged("loop", before, [new])
    jsonschema.validate(record, SCHEMA)
    assert {each["figure"]: each["date"] for each in record["figures"]} == {"load": "2026-11-20", "cold": "2026-11-21"}
    assert "| load | 0.1 s |  |  | 1 | `make a`, commit aaaaaaa, 2026-11-20, 2 cores |" in records.table(record)


def test_a_run_knows_its_own_figures_that_miss_their_limit(folder: Path) -> None:
    records.Recorder("loop", "make bench-loop").save(figure("of an earlier run", 9, 1))
    run = records.Recorder("loop", "make bench-loop")
    run.save(figure("fast", 1, 1), figure("slow", 1.5, 1))
    run.save(figure("only told", 7))
    assert run.missed() == ["slow: 1.5 s, the limit is 1 s"]
    assert {each["figure"] for each in read(folder / "loop.json")["figures"]} == {"of an earlier run", "fast", "slow", "only told"}
