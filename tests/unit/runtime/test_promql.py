"""What the canary's query counts, by the real PromQL engine (promtool) where it is built."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from graftwork.cluster.prometheus import promql
from graftwork.facts.canary import Question

from tests.cluster.cache import cache_root

BEGIN, NOW = 600, 900
"""Seconds; a sample is taken every ten."""
QUESTION = Question("ml", "support", "medical", 7, 8, datetime.fromtimestamp(BEGIN, UTC))
LABELS = 'namespace="ml",pod="support-7d9f8b6c5d-x2x7p",alias="medical",digest="3f2a9c41d0e7",version="8"'


def series(values: str, started: str, outcome: str = "answered", more: str = "") -> list[dict[str, str]]:
    """Return a counter and the start of its series, in promtool's words: `a+bxn` is a first value, a step and how often; `_xn` is no sample."""
    labels = f"{LABELS}{more}"
    return [
        {"series": f'graftwork_requests_ended_total{{{labels},outcome="{outcome}"}}', "values": values},
        {"series": f"graftwork_series_start_time_seconds{{{labels}}}", "values": started},
    ]


def holds(folder: Path, given: list[dict[str, str]], condition: str, what: str = "answered", question: Question = QUESTION) -> None:
    """Check that the number of the candidate fulfils a condition."""
    found = sorted(cache_root().glob("bin/prometheus-*/promtool"), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.skip("the prometheus binary is not built (python3 -m tests.cluster build prometheus)")
    test = {
        "expr": f'count(label_join(({promql(question, NOW - BEGIN)}), "key", "/", "what", "version") {condition}) by (key)',
        "eval_time": f"{NOW}s",
        "exp_samples": [{"labels": f'{{key="{what}/8"}}', "value": 1}],
    }
    file = folder / "test.json"
    file.write_text(json.dumps({"evaluation_interval": "10s", "tests": [{"interval": "10s", "input_series": given, "promql_expr_test": [test]}]}))
    done = subprocess.run([found[-1], "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_was_counted_before_the_step_does_not_count(tmp_path: Path) -> None:
    holds(tmp_path, series("1000+1x90", "5x90"), ">= 29 <= 31")


def test_a_series_that_begins_in_the_step_counts_from_zero(tmp_path: Path) -> None:
    holds(tmp_path, series("_x70 40+1x20", "_x70 702x20"), ">= 60 <= 60")


def test_a_series_whose_first_sample_is_late_counts_what_was_seen_of_it_and_not_its_whole_life(tmp_path: Path) -> None:
    """Prometheus was away when the step began, or has lost its data."""
    holds(tmp_path, series("_x70 1000+1x20", "_x70 5x20"), ">= 19 <= 31")


def test_a_process_that_ended_in_the_step_does_not_bring_its_life_into_it(tmp_path: Path) -> None:
    holds(tmp_path, series("_x70 1000+1x9 0+1x10", "_x70 5x9 800x10"), "<= 31")
    holds(tmp_path, series("1000+1x70 0+1x19", "5x70 705x19"), ">= 28 <= 31")


def test_failures_are_counted_apart_and_a_pod_that_is_scraped_twice_is_counted_once(tmp_path: Path) -> None:
    twice = [*series("1000+1x90", "5x90", "failed", ',job="a"'), *series("1000+1x90", "5x90", "failed", ',job="b"')]
    holds(tmp_path, twice, ">= 29 <= 31", "failed")


def test_a_guard_that_does_not_tell_when_a_series_began_is_counted_by_what_was_seen(tmp_path: Path) -> None:
    holds(tmp_path, series("_x70 1000+1x20", "_x70 5x20")[:1], ">= 19 <= 31")
