"""Benchmark records (docs/design/contracts.md, section 11): figures with their raw samples, merged into one file, with the table rendered from it."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.harness.venv import ROOT

FOLDER = ROOT / "docs" / "benchmarks"


@dataclass(frozen=True)
class Figure:
    """One measured figure; `limit` is the largest value that holds, None when the figure is only reported."""

    figure: str
    value: float
    unit: str
    limit: float | None
    samples: list[float]

    def as_record(self) -> dict[str, Any]:
        """Return the figure as it is written."""
        return {**asdict(self), "holds": None if self.limit is None else self.value <= self.limit}


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
    kept = json.loads(path.read_text())["figures"] if path.exists() else []
    new = [figure.as_record() for figure in figures]
    names = {each["figure"] for each in new}
    merged = sorted([each for each in kept if each["figure"] not in names] + new, key=lambda each: str(each["figure"]))
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    record = {"name": name, "command": command, "commit": commit(), "date": now, "machine": machine(), "figures": merged}
    path.write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(record))
    return path


def table(record: dict[str, Any]) -> str:
    """Render a record as Markdown."""
    lines = [
        f"# {record['name']}",
        "",
        f"`{record['command']}`, commit {record['commit']}, {record['date']}, {record['machine']}.",
        f"Rendered from `{record['name']}.json`, which has the samples.",
        "",
        "| figure | value | limit | holds | samples |",
        "|---|---|---|---|---|",
    ]
    for each in record["figures"]:
        limit = "" if each["limit"] is None else f"{each['limit']:g} {each['unit']}"
        holds = {True: "yes", False: "**no**", None: ""}[each["holds"]]
        lines.append(f"| {each['figure']} | {each['value']:g} {each['unit']} | {limit} | {holds} | {len(each['samples'])} |")
    return "\n".join(lines) + "\n"
