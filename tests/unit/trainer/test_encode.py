"""Examples to tokens: which of them are learned, and what happens to those that are too long. A tokenizer of characters stands in."""

from __future__ import annotations

from typing import Any

import pytest
from graftwork_trainer.encode import IGNORED, encode
from graftwork_trainer.errors import RunError
from graftwork_trainer.formats import Example, Message
from hypothesis import given
from hypothesis import strategies as st

BOS = "\u0001"


class Characters:
    """A tokenizer whose tokens are characters; `forgets` renders answers differently once another turn follows."""

    eos_token = "$"

    def __init__(self, *, forgets: bool = False) -> None:
        self.forgets = forgets

    def __call__(self, texts: list[str], *, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(character) for character in (BOS if add_special_tokens else "") + text] for text in texts]}

    def apply_chat_template(self, turns: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        if any(turn["role"] == "system" for turn in turns):
            raise ValueError("System role not supported")
        rendered = ""
        for number, turn in enumerate(turns):
            last = number == len(turns) - 1
            thought = "[think]" if self.forgets and turn["role"] == "assistant" and last else ""
            rendered += f"<{turn['role'][0]}>{thought}{turn['content']};"
        return rendered + ("<a>" if add_generation_prompt else "")


def talk(*texts: str) -> Example:
    return Example(messages=tuple(Message("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)))


def shown(sequence: dict[str, list[int]]) -> tuple[str, str]:
    """Return what is read, and what of it is learned (a dot where nothing is)."""
    read = "".join(map(chr, sequence["input_ids"]))
    return read, "".join("." if label == IGNORED else chr(label) for label in sequence["labels"])


def test_of_a_conversation_only_the_answers_are_learned() -> None:
    (sequence,) = encode(Characters(), [talk("hi", "yo", "why", "so")], 100).sequences
    assert shown(sequence) == ("<u>hi;<a>yo;<u>why;<a>so;", ".........yo;..........so;")


def test_a_template_that_rewrites_earlier_turns_gives_one_sequence_for_each_answer() -> None:
    sequences = encode(Characters(forgets=True), [talk("hi", "yo", "why", "so")], 100).sequences
    assert [shown(sequence) for sequence in sequences] == [
        ("<u>hi;<a>[think]yo;", ".........[think]yo;"),
        ("<u>hi;<a>yo;<u>why;<a>[think]so;", "......................[think]so;"),
    ]


def test_of_a_prompt_nothing_is_learned_and_the_completion_ends() -> None:
    (sequence,) = encode(Characters(), [Example(prompt="1+1=", completion="2")], 100).sequences
    assert shown(sequence) == (f"{BOS}1+1=2$", ".....2$")


def test_of_plain_text_everything_is_learned() -> None:
    (sequence,) = encode(Characters(), [Example(completion="all$")], 100).sequences
    assert shown(sequence) == (f"{BOS}all$", f"{BOS}all$")


def test_long_examples_are_cut_and_those_without_an_answer_left_are_dropped() -> None:
    encoded = encode(Characters(), [talk("hi", "a long answer"), talk("a long question", "yo"), talk("a", "b")], 12)
    assert (len(encoded.sequences), encoded.cut, encoded.dropped) == (2, 2, 1)
    assert shown(encoded.sequences[0])[1] == ".........a l"
    assert encoded.tokens == 12 + len("<u>a;<a>b;")


def test_a_template_that_refuses_an_example_names_it() -> None:
    system = Example(messages=(Message("system", "be kind"), Message("user", "hi"), Message("assistant", "yo")))
    with pytest.raises(RunError, match=r"example 2: .*System role not supported") as caught:
        encode(Characters(), [talk("a", "b"), system], 100)
    assert caught.value.reason == "DatasetInvalid"


@given(
    st.lists(st.lists(st.text("abc ;<>", min_size=1), min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0), min_size=1),
    st.integers(8, 60),
)
def test_labels_are_the_token_or_ignored_and_never_longer_than_allowed(talks: list[list[str]], length: int) -> None:
    encoded = encode(Characters(), [talk(*texts) for texts in talks], length)
    assert len(encoded.sequences) + encoded.dropped == len(talks)
    for sequence in encoded.sequences:
        ids, labels = sequence["input_ids"], sequence["labels"]
        assert len(ids) == len(labels) <= length
        assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
        assert any(label != IGNORED for label in labels[1:])


def test_a_tokenizer_is_never_asked_for_nothing() -> None:
    class Strict(Characters):
        def __call__(self, texts: list[str], **keywords: Any) -> dict[str, list[list[int]]]:
            assert all(texts)
            assert texts
            return super().__call__(texts, **keywords)

    assert encode(Strict(), [talk("a", "b"), Example(completion="c")], 50).dropped == 0
