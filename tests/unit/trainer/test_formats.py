"""One line of a dataset: what each format accepts, and what it says of a line that is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from graftwork_trainer.formats import FORMATS, Example, LineError, Message, detect, parse_record
from hypothesis import given
from hypothesis import strategies as st

USER, ASSISTANT, SYSTEM = ({"role": role, "content": "hi"} for role in ("user", "assistant", "system"))

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda text: bool(text.strip()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["role", "content", "messages", "text", "x"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"messages": []}, "messages"),
        ({"instruction": "a", "output": "b"}, "instruct"),
        ({"instruction": "a", "input": "c", "output": "b"}, "instruct"),
        ({"prompt": "a", "completion": "b"}, "prompt_completion"),
        ({"text": "a"}, "text"),
        ({"messages": [], "text": "a"}, "messages"),
    ],
)
def test_a_format_is_recognised_by_its_keys(record: dict[str, Any], name: str) -> None:
    found = detect(record)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("record", [{}, {"prompt": "a"}, {"instruction": "a"}, [], "text", None, 3])
def test_what_has_no_known_keys_is_no_format(record: object) -> None:
    assert detect(record) is None


def test_a_conversation_keeps_its_turns() -> None:
    example = parse_record({"messages": [SYSTEM, USER, ASSISTANT, USER, ASSISTANT], "id": 7}, FORMATS["messages"])
    assert [message.role for message in example.messages] == ["system", "user", "assistant", "user", "assistant"]


def test_an_instruction_with_input_becomes_a_conversation() -> None:
    example = parse_record({"instruction": "Translate", "input": "chat", "output": "cat"}, FORMATS["instruct"])
    assert example == Example(messages=(Message("user", "Translate\n\nchat"), Message("assistant", "cat")))
    assert parse_record({"instruction": "Say", "input": None, "output": "x"}, FORMATS["instruct"]).messages[0].content == "Say"


def test_plain_text_formats_say_what_is_learned() -> None:
    assert parse_record({"prompt": "1+1=", "completion": "2"}, FORMATS["prompt_completion"]) == Example(prompt="1+1=", completion="2")
    assert parse_record({"text": "all of it"}, FORMATS["text"]) == Example(completion="all of it")


@pytest.mark.parametrize(
    ("form", "record", "expected"),
    [
        ("messages", {"messages": "x"}, 'expected "messages" to be a list of'),
        ("messages", {"messages": []}, "found an empty list"),
        ("messages", {"messages": ["x"]}, '"messages[0]" to be an object'),
        ("messages", {"messages": [USER]}, "last message to be the assistant's answer"),
        ("messages", {"messages": [ASSISTANT]}, "expected a user message before the assistant's"),
        ("messages", {"messages": [USER, USER, ASSISTANT]}, 'found "user" twice in a row at messages[1]'),
        ("messages", {"messages": [USER, SYSTEM, ASSISTANT]}, '"system" only as the first message'),
        ("messages", {"messages": [USER, {"role": "tool", "content": "x"}]}, 'one of system, user, assistant, found "tool"'),
        ("messages", {"messages": [USER, {"role": "assistant", "content": " "}]}, '"messages[1].content" to have content, found an empty text'),
        ("messages", {"messages": [USER, {"role": "assistant", "content": None}]}, "to be a text, found null"),
        ("messages", {"messages": [USER, {"role": "assistant"}]}, 'expected "messages[1].content" (a text), found no such key'),
        ("messages", {"text": "x"}, 'found the keys "text"'),
        ("instruct", {"instruction": "a", "output": ""}, '"output" to have content'),
        ("instruct", {"instruction": "a", "input": 3, "output": "b"}, '"input" to be a text, found a number'),
        ("prompt_completion", {"prompt": "a", "completion": ["b"]}, '"completion" to be a text, found a list'),
        ("text", {"text": True}, "found true or false"),
        ("text", {"text": "a\ud800"}, "half of a surrogate pair at character 2"),
        ("text", [1], "expected a JSON object like"),
    ],
)
def test_a_wrong_line_is_told_what_was_expected_and_what_was_found(form: str, record: object, expected: str) -> None:
    with pytest.raises(LineError) as caught:
        parse_record(record, FORMATS[form])
    assert expected in str(caught.value)


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_every_well_formed_conversation_is_accepted(texts: list[str]) -> None:
    turns = [turn for text in texts for turn in ({"role": "user", "content": text}, {"role": "assistant", "content": text})]
    example = parse_record({"messages": turns}, FORMATS["messages"])
    assert [message.content for message in example.messages] == [turn["content"] for turn in turns]


@given(JSON, st.sampled_from(sorted(FORMATS)))
def test_any_json_value_is_an_example_or_a_line_error(value: object, form: str) -> None:
    example, problem = outcome(value, form)
    if example is None:
        assert "expected" in problem
    else:
        assert example.messages or example.completion
        assert all(message.content.encode() for message in example.messages)


def outcome(value: object, form: str) -> tuple[Example | None, str]:
    try:
        return parse_record(value, FORMATS[form]), ""
    except LineError as error:
        return None, str(error)
