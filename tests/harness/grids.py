"""Figures named `<title>: <row>: <column>` as one table per title, so that what belongs together is read in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SEPARATOR = ": "
PARTS = 3

Record = Mapping[str, Any]


def parts(name: str) -> tuple[str, str, str] | None:
    """Return title, row and column of a figure's name; None for one that is not of a grid. The column may have colons of its own."""
    found = name.split(SEPARATOR, PARTS - 1)
    return (found[0], found[1], found[2]) if len(found) == PARTS else None


def order(name: str) -> tuple[str, ...]:
    """Return by what figures are sorted: those of a row stay in the order in which they were measured."""
    found = parts(name)
    return found[:2] if found else (name,)


def split(figures: Sequence[Record]) -> tuple[list[Record], dict[str, list[Record]]]:
    """Return the figures that stand alone, and those of each title; a title's columns keep the order in which the first row has them."""
    alone: list[Record] = []
    titles: dict[str, list[Record]] = {}
    for each in figures:
        found = parts(str(each["figure"]))
        if found:
            titles.setdefault(found[0], []).append(each)
        else:
            alone.append(each)
    return alone, titles


def lines(title: str, figures: Sequence[Record], differences: Mapping[str, str]) -> list[str]:
    """Render the figures of one title; `differences` says by figure what of its measurement is not the record's."""
    named = [(found, each) for each in figures if (found := parts(str(each["figure"])))]
    rows = list(dict.fromkeys(row for (_, row, _), _ in named))
    columns = list(dict.fromkeys(column for (_, _, column), _ in named))
    cells = {(row, column): _cell(each) for (_, row, column), each in named}
    others = {row: next((differences[str(each["figure"])] for (_, its, _), each in named if its == row), "") for row in rows}
    last = ["measured otherwise"] if any(others.values()) else []
    made = [f"## {title}", "", f"| {' | '.join(['', *columns, *last])} |", "|---" * (1 + len(columns) + len(last)) + "|"]
    for row in rows:
        values = [cells.get((row, column), "") for column in columns]
        made.append(f"| {' | '.join([row, *values, *([others[row]] if last else [])])} |")
    limits = {column: each["limit"] for (_, _, column), each in named if each["limit"] is not None}
    if limits:
        made += ["", f"Limits: {', '.join(f'{column} {limit:g}' for column, limit in limits.items())}."]
    return made


def _cell(figure: Record) -> str:
    value = f"{figure['value']:g}" + (" s" if figure["unit"] == "s" else "")
    return f"**{value}**" if figure["holds"] is False else value
