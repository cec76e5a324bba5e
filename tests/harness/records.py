"""Benchmark records (docs/design/contracts.md, section 11): figures with their raw samples, merged into one file, with the table rendered from it.

Each figure says by which command, of which commit, when and where it was measured; what most of them share is the record's.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.harness import grids
from tests.harness.venv import ROOT

FOLDER = ROOT / "docs" / "benchmarks"
STAMP = ("command", "commit", "date", "machine")


@dataclass(frozen=True)
class Figure:
    """One measured figure; `limit` is the largest value that holds, None when the figure is only reported."""

    figure: str
    value: float
    unit: str
    limit: float | None
    samples: list[float]

    @property
    def holds(self) -> bool | None:
        """Whether the value is within its limit; None where there is none."""
        return None if self.limit is None else self.value <= self.limit

    def as_record(self) -> dict[str, Any]:
        """Return the figure as it is written."""
        return {**asdict(self), "holds": self.holds}


@dataclass(frozen=True)
class Recorder:
    """Writes the figures of one run, and knows at its end which of them miss their limit."""

    name: str
    command: str
    measured: list[Figure] = field(default_factory=list)

    def save(self, *figures: Figure) -> None:
        """Write figures as soon as they are known, so that an interrupted run keeps what it has."""
        write(self.name, self.command, list(figures))
        self.measured.extend(figures)
        for figure in figures:
            print(f"{figure.figure}: {figure.value:g} {figure.unit}", flush=True)

    def missed(self) -> list[str]:
        """Return a sentence for each figure of this run that does not hold."""
        missing = [figure for figure in self.measured if figure.holds is False]
        return [f"{each.figure}: {each.value:g} {each.unit}, the limit is {each.limit:g} {each.unit}" for each in missing]


def percentile(samples: list[float], share: float) -> float:
    """Return the nearest-rank percentile: with fewer than 100 samples, p99 is the largest."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary(figure: str, samples: list[float], unit: str, limit: float | None, share: float = 0.99) -> Figure:
    """Return a percentile of samples as a figure."""
    return Figure(figure, round(percentile(samples, share), 4), unit, limit, [round(sample, 4) for sample in samples])


def machine() -> str:
    """Describe this machine by what bears on the figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, no GPU"


def commit() -> str:
    """Return the commit that was measured, marked when the tree had changes."""
    done = subprocess.run(("git", "describe", "--always", "--dirty"), cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def write(name: str, command: str, figures: list[Figure]) -> Path:
    """Merge figures into docs/benchmarks/<name>.json (same figure: replaced), render <name>.md, and return the JSON's path."""
    path = FOLDER / f"{name}.json"
    FOLDER.mkdir(parents=True, exist_ok=True)
    stamp = {"command": command, "commit": commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine()}
    record = merged(name, json.loads(path.read_text()) if path.exists() else None, [{**figure.as_record(), **stamp} for figure in figures])
    path.write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(record))
    return path


def merged(name: str, before: dict[str, Any] | None, new: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the record with the new figures in it; those that stay keep what they say of their measurement."""
    names = {each["figure"] for each in new}
    kept = [{**each, **stamp_of(each, before)} for each in before["figures"] if each["figure"] not in names] if before else []
    figures = sorted(kept + new, key=lambda each: grids.order(str(each["figure"])))
    shared = Counter(tuple(each[key] for key in STAMP) for each in new + kept).most_common(1)[0][0]  # of equally many, the new ones
    return {"name": name, **dict(zip(STAMP, shared, strict=True)), "figures": figures}


def stamp_of(figure: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, str]:
    """Return how a figure was measured: as it says itself, else as its record says."""
    return {key: str(figure.get(key, record[key])) for key in STAMP}


def table(record: dict[str, Any]) -> str:
    """Render a record as Markdown."""
    lines = [
        f"# {record['name']}",
        "",
        f"`{record['command']}`, commit {record['commit']}, {record['date']}, {record['machine']}.",
        f"Rendered from `{record['name']}.json`, which has the samples.",
        "",
    ]
    alone, titles = grids.split(record["figures"])
    for title, figures in titles.items():
        lines += [*grids.lines(title, figures, {str(each["figure"]): _differences(each, record) for each in figures}), ""]
    if not alone:
        return "\n".join(lines)
    lines += ["## Other figures", ""] if titles else []
    others = [_differences(each, record) for each in alone]
    columns = ["figure", "value", "limit", "holds", "samples", *(["measured otherwise"] if any(others) else [])]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for each, other in zip(alone, others, strict=True):
        limit = "" if each["limit"] is None else f"{each['limit']:g} {each['unit']}"
        holds = {True: "yes", False: "**no**", None: ""}[each["holds"]]
        cells = [each["figure"], f"{each['value']:g} {each['unit']}", limit, holds, str(len(each["samples"])), *([other] if any(others) else [])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _differences(figure: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return what a figure's measurement does not share with its record."""
    words = {"command": "`{}`", "commit": "commit {}", "date": "{}", "machine": "{}"}
    return ", ".join(words[key].format(value) for key, value in stamp_of(figure, record).items() if value != record[key])
