"""Reads and checks a dataset: every line, before anything heavy is imported. Pure but for reading the file."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftwork_trainer.errors import RunError, dataset_invalid
from graftwork_trainer.formats import FORMATS, Example, Format, LineError, detect, parse_record

SHOWN_PROBLEMS = 20
FEW_EXAMPLES = 1000


@dataclass(frozen=True)
class Problem:
    """A wrong line: its number, counted from 1, and what was expected there."""

    line: int
    text: str


@dataclass(frozen=True)
class Data:
    """A checked dataset, split into what is learned and what the result is measured on.

    `evaluation` is what to measure on: the held-out `validation` examples, or those of `train` when nothing could be held out.
    """

    digest: str
    form: Format
    train: list[Example]
    validation: list[Example]
    warnings: list[str] = field(default_factory=list)

    @property
    def examples(self) -> int:
        """Number of examples in the file."""
        return len(self.train) + len(self.validation)

    @property
    def evaluation(self) -> list[Example]:
        """The examples that base and adapter are compared on, each once."""
        return self.validation or list(dict.fromkeys(self.train))

    def facts(self, tokens: int | None) -> dict[str, Any]:
        """Return the `dataset` object of progress and result."""
        return {
            "examples": self.examples,
            "validation": len(self.validation),
            "tokens": tokens,
            "digest": self.digest,
            "format": self.form.name,
            "warnings": self.warnings,
        }


def load(folder: Path, form: str, validation: float, seed: int) -> Data:
    """Return the dataset in `folder`; raises RunError (exit 64) that names the file, the lines and what was expected of them."""
    path = find_file(folder)
    content = path.read_bytes()
    found, examples = check(path.name, content, form)
    train, held_out = split(examples, validation, seed)
    return Data("sha256:" + hashlib.sha256(content).hexdigest(), found, train, held_out, _warnings(examples, held_out, validation))


def find_file(folder: Path) -> Path:
    """Return the one data file in `folder` (or `folder` itself, when it is a file)."""
    if folder.is_file():
        return folder
    if not folder.is_dir():
        raise dataset_invalid(f"dataset.path {folder} does not exist: expected a folder with one data file")
    # The kubelet keeps a ConfigMap's versions beside its keys under names that begin with a dot.
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts))
    if len(files) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in files[:5]) or "none"
        raise dataset_invalid(f"dataset.path {folder} has {len(files)} files ({names}): expected exactly one; name one file in dataset.source")
    return files[0]


def check(name: str, content: bytes, form: str) -> tuple[Format, list[Example]]:
    """Return the format and all examples of the file; raises RunError with the first wrong lines and their count."""
    found = None if form == "auto" else FORMATS[form]
    examples: list[Example] = []
    problems: list[Problem] = []
    for line, record in records(content):
        if isinstance(record, LineError):
            problems.append(Problem(line, str(record)))
            continue
        found = found or detect(record)
        if found is None:
            raise dataset_invalid(f"{name} line {line}: no known format. {_expected_formats()}")
        try:
            examples.append(parse_record(record, found))
        except LineError as error:
            problems.append(Problem(line, str(error)))
    if problems:
        raise _wrong_lines(name, problems, len(problems) + len(examples))
    if found is None or not examples:
        raise dataset_invalid(f"{name} has no examples. {_expected_formats()}")
    return found, examples


def _wrong_lines(name: str, problems: list[Problem], lines: int) -> RunError:
    listed = "; ".join(f"line {problem.line}: {problem.text}" for problem in problems[:SHOWN_PROBLEMS])
    more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
    return dataset_invalid(f"{name} {listed}{more} ({len(problems)} of {lines} lines {'is' if len(problems) == 1 else 'are'} wrong)")


def _expected_formats() -> str:
    return "Expected one JSON object per line, in one of these shapes: " + "  ".join(form.spelling for form in FORMATS.values())


def records(content: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (line number, decoded value, or the LineError in its place) of JSON Lines or of one JSON array."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    if content.lstrip()[:1] == b"[":
        yield from _array(content)
        return
    # Only \n ends a line: splitlines() would also cut inside texts at characters such as U+2028.
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield number, _decode(line)


def _decode(line: bytes) -> Any:
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        return LineError(f"expected UTF-8 text, found the byte 0x{line[error.start]:02x} at position {error.start + 1}")
    except json.JSONDecodeError as error:
        hint = " (one whole object per line)" if error.pos >= len(line.decode().rstrip()) else ""
        return LineError(f"expected JSON{hint}, found an error at column {error.colno}: {error.msg}")
    except (ValueError, RecursionError) as error:
        return LineError(f"expected JSON that can be read, found {error}")


def _array(content: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the items of one JSON array with the line on which each begins."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        yield content[: error.start].count(b"\n") + 1, LineError(f"expected UTF-8 text, found the byte 0x{content[error.start]:02x}")
        return
    decoder, at, line, counted = json.JSONDecoder(), _skip(text, text.index("[") + 1), 1, 0
    while at < len(text) and text[at] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield line, LineError(f"expected an item of a JSON array, found {error}")
            return
        yield line, value
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            yield text.count("\n", 0, at) + 1, LineError('expected "," or "]" after an item of the JSON array')
            return
    if at >= len(text):
        yield text.count("\n") + 1, LineError('expected "]" at the end of the JSON array')
    elif text[at + 1 :].strip():
        yield text.count("\n", 0, at) + 1, LineError("expected nothing after the JSON array")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def split(examples: list[Example], validation: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Return (train, validation): the same for the same seed, and never one example in both.

    Copies of an example stay together. At least one is held out when `validation` is above 0 and there are two different ones; when
    all are equal, nothing is held out.
    """
    copies: dict[Example, int] = {}
    for example in examples:
        copies[example] = copies.get(example, 0) + 1
    if validation <= 0 or len(copies) < 2:
        return list(examples), []
    order = list(copies)
    random.Random(seed).shuffle(order)  # noqa: S311 - a split, not a secret
    target, chosen, count = max(1, round(validation * len(examples))), set[Example](), 0
    for example in order:
        # What is repeated is what the user wants learned: a group larger than what is still wanted stays in training.
        if count + copies[example] <= target and len(chosen) < len(order) - 1:
            chosen.add(example)
            count += copies[example]
    if not chosen:
        chosen.add(min(order, key=lambda example: copies[example]))
    return [one for one in examples if one not in chosen], [one for one in examples if one in chosen]


def _warnings(examples: list[Example], held_out: list[Example], validation: float) -> list[str]:
    """Return what a user should know about the data although it can be trained on."""
    found = []
    distinct = len(set(examples))
    if len(examples) < FEW_EXAMPLES:
        found.append(f"{len(examples)} examples: with fewer than {FEW_EXAMPLES:,} an adapter mostly repeats them")
    if distinct < len(examples):
        found.append(f"{len(examples) - distinct} of {len(examples)} examples are copies of others")
    if not held_out:
        why = "dataset.validation is 0" if validation <= 0 else "all examples are the same"
        found.append(f"no validation set ({why}): the adapter was compared with its base on the examples it was trained on")
    return found
