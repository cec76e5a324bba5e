"""A whole dataset: found, read, checked, split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graftwork_trainer import data
from graftwork_trainer.errors import RunError
from graftwork_trainer.formats import Example
from hypothesis import given
from hypothesis import strategies as st


def row(question: str, answer: str = "yes") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def lines(*records: object) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def refused(content: bytes, form: str = "auto") -> str:
    with pytest.raises(RunError) as caught:
        data.check("tickets.jsonl", content, form)
    assert caught.value.reason == "DatasetInvalid"
    return caught.value.message


def test_a_wrong_line_is_named_with_its_file_and_number() -> None:
    message = refused(lines(row("a"), row("b"), {"messages": [{"role": "user", "content": "no answer"}]}))
    assert message.startswith("tickets.jsonl line 3: expected the last message to be the assistant's answer")
    assert "(1 of 3 lines is wrong)" in message


def test_twenty_wrong_lines_are_listed_and_the_rest_counted() -> None:
    message = refused(lines(row("a"), *({"messages": number} for number in range(30))))
    assert message.count("line ") == 20
    assert "; and 10 more (30 of 31 lines are wrong)" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "tickets.jsonl has no examples"),
        (b"\n \n", "tickets.jsonl has no examples"),
        (b"[]", "tickets.jsonl has no examples"),
        (b'{"question": "a"}\n', "tickets.jsonl line 1: no known format"),
        (b'{"text": "a"}\n{"text": \n', "line 2: expected JSON (one whole object per line)"),
        (b'{"text": "a"}\n\xff\n', "line 2: expected UTF-8 text, found the byte 0xff at position 1"),
        (b'{"text": "a"}\n' + b"[" * 100_000, "line 2: expected JSON that can be read"),
        (b'{"text": "a"}\n{"text": "b"} {"text": "c"}\n', "line 2: expected JSON"),
        (b'[{"text": "a"},\n{"text": 1}]', 'line 2: expected "text" to be a text, found a number'),
        (b'[{"text": "a"}\n{"text": "b"}]', 'line 2: expected "," or "]"'),
        (b'[{"text": "a"},\n', 'line 2: expected "]"'),
        (b'[{"text": "a"}] x', "expected nothing after the JSON array"),
        (b'[{"text": "a"}, {]', "expected an item of a JSON array"),
    ],
)
def test_what_cannot_be_read_says_where_and_what_was_expected(content: bytes, expected: str) -> None:
    assert expected in refused(content)


@pytest.mark.parametrize(
    "content",
    [
        b'{"text": "a"}\n\n{"text": "b"}',
        b'{"text": "a"}\n{"text": "b"}\n',
        b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n',
        b' [{"text": "a"},\n {"text": "b"}]\n',
    ],
)
def test_json_lines_and_json_arrays_are_read(content: bytes) -> None:
    form, examples = data.check("x", content, "auto")
    assert form.name == "text"
    assert [example.completion for example in examples] == ["a", "b"]


def test_line_separators_inside_a_text_do_not_end_a_line() -> None:
    _, examples = data.check("x", '{"text": "a\u2028b\u0085c"}\n'.encode(), "auto")
    assert examples[0].completion == "a\u2028b\u0085c"


def test_a_format_that_was_asked_for_is_not_guessed() -> None:
    assert 'expected an object like {"text": "..."}' in refused(lines(row("a")), "text")


def test_the_first_line_decides_the_format_of_all() -> None:
    assert "line 2: expected an object like" in refused(lines(row("a"), {"text": "b"}))


def test_the_one_file_of_a_configmap_volume_is_found(tmp_path: Path) -> None:
    versions = tmp_path / "..2026_11_21"
    versions.mkdir()
    (versions / "train.jsonl").write_bytes(lines(row("a"), row("b")))
    (tmp_path / "..data").symlink_to(versions.name)
    (tmp_path / "train.jsonl").symlink_to("..data/train.jsonl")
    assert data.find_file(tmp_path).name == "train.jsonl"


@pytest.mark.parametrize(("names", "expected"), [((), "has 0 files (none)"), (("a.jsonl", "b.jsonl"), "has 2 files (a.jsonl, b.jsonl)")])
def test_a_folder_must_hold_exactly_one_file(tmp_path: Path, names: tuple[str, ...], expected: str) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(RunError, match="expected exactly one") as caught:
        data.find_file(tmp_path)
    assert expected in caught.value.message


def test_facts_and_warnings_of_a_small_dataset(tmp_path: Path) -> None:
    content = lines(*(row(f"question {number % 8}") for number in range(10)))
    (tmp_path / "d.jsonl").write_bytes(content)
    found = data.load(tmp_path, "auto", 0.2, seed=1)
    facts = found.facts(tokens=5)
    assert (facts["examples"], facts["validation"], facts["tokens"], facts["format"]) == (10, 2, 5, "messages")
    assert facts["digest"].startswith("sha256:")
    assert facts["warnings"] == ["10 examples: with fewer than 1,000 an adapter mostly repeats them", "2 of 10 examples are copies of others"]


@pytest.mark.parametrize(("records", "validation", "why"), [([row("a")] * 5, 0.2, "all examples are the same"), ([row("a"), row("b")], 0.0, "is 0")])
def test_without_a_validation_set_the_training_examples_are_measured_and_it_is_said(
    tmp_path: Path, records: list[dict[str, Any]], validation: float, why: str
) -> None:
    (tmp_path / "d.jsonl").write_bytes(lines(*records))
    found = data.load(tmp_path, "auto", validation, seed=1)
    assert found.validation == []
    assert set(found.evaluation) == set(found.train)
    assert any("no validation set" in warning and why in warning for warning in found.warnings)


def test_what_is_repeated_stays_in_training() -> None:
    examples = [Example(completion="important")] * 6 + [Example(completion=f"other {number}") for number in range(4)]
    for seed in range(20):
        train, held_out = data.split(examples, 0.1, seed)
        assert train.count(Example(completion="important")) == 6
        assert len(held_out) == 1


def outcome(content: bytes) -> tuple[list[Example], RunError | None]:
    try:
        return data.check("x.jsonl", content, "auto")[1], None
    except RunError as error:
        return [], error


EXAMPLES = st.lists(st.sampled_from([Example(completion=text) for text in "abcdefgh"]), min_size=1, max_size=40)


@given(EXAMPLES, st.floats(0, 0.9), st.integers(0, 2**32 - 1))
def test_a_split_loses_nothing_shares_nothing_and_is_repeatable(examples: list[Example], validation: float, seed: int) -> None:
    train, held_out = data.split(examples, validation, seed)
    assert sorted(train + held_out, key=str) == sorted(examples, key=str)
    assert not set(train) & set(held_out)
    assert train
    assert bool(held_out) == (validation > 0 and len(set(examples)) >= 2)
    assert (train, held_out) == data.split(examples, validation, seed)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_dataset_or_an_error_about_it(content: bytes) -> None:
    examples, error = outcome(content)
    if error:
        assert (error.reason, "x.jsonl" in error.message) == ("DatasetInvalid", True)
    else:
        assert examples


@given(st.lists(st.sampled_from([b'{"text": "a"}', b'{"text": 1}', b"{", b"", b"[", b"]", b",", b'{"x": "a"}']), max_size=12))
def test_every_line_is_an_example_a_problem_or_blank(parts: list[bytes]) -> None:
    content = b"\n".join(parts)
    numbers = [number for number, _ in data.records(content)]
    assert numbers == sorted(numbers)
    assert all(1 <= number <= max(1, len(parts)) for number in numbers)
