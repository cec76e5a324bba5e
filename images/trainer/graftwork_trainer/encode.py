"""Examples to tokens: what the model reads, and which of it is learned. Needs a tokenizer, and no torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from graftwork_trainer.errors import dataset_invalid
from graftwork_trainer.formats import Example, Message

IGNORED = -100
CHUNK = 1000  # texts per call of the tokenizer


@dataclass(frozen=True)
class Segment:
    """A stretch of text; `learned` says whether its tokens count in the loss. `begins`: the tokenizer's own prefix (BOS) goes before it."""

    text: str
    learned: bool
    begins: bool = False


@dataclass(frozen=True)
class Encoded:
    """Token sequences with labels (-100 where nothing is learned), none longer than `max_length`, and how many did not fit."""

    sequences: list[dict[str, list[int]]]
    max_length: int
    cut: int
    dropped: int

    @property
    def tokens(self) -> int:
        """Number of tokens of all sequences."""
        return sum(len(sequence["input_ids"]) for sequence in self.sequences)


def encode(tokenizer: Any, examples: list[Example], max_length: int) -> Encoded:
    """Return the sequences of `examples`, cut after `max_length` tokens; one of which nothing learned is left is dropped.

    A conversation becomes one sequence with every assistant turn learned, or, where the chat template renders a turn differently once
    others follow (it drops earlier reasoning, for example), one sequence for each assistant turn, as it is rendered when it is served.
    """
    sequences: list[dict[str, list[int]]] = []
    cut = dropped = 0
    segmented = itertools.chain.from_iterable(_segments(tokenizer, example, number) for number, example in enumerate(examples, 1))
    for ids, labels in _tokenize(tokenizer, segmented):
        cut += len(ids) > max_length
        kept = labels[:max_length]
        # The first token is never predicted, so a label there teaches nothing.
        if any(label != IGNORED for label in kept[1:]):
            sequences.append({"input_ids": ids[:max_length], "labels": kept})
        else:
            dropped += 1
    return Encoded(sequences, max_length, cut, dropped)


def _segments(tokenizer: Any, example: Example, number: int) -> Iterator[list[Segment]]:
    if example.messages:
        yield from _conversation(tokenizer, example.messages, number)
        return
    end = tokenizer.eos_token or ""
    completion = example.completion if end and example.completion.endswith(end) else example.completion + end
    if example.prompt:
        yield [Segment(example.prompt, learned=False, begins=True), Segment(completion, learned=True)]
    else:
        yield [Segment(completion, learned=True, begins=True)]


def _conversation(tokenizer: Any, messages: tuple[Message, ...], number: int) -> Iterator[list[Segment]]:
    answers = [at for at, message in enumerate(messages) if message.role == "assistant"]
    renders = [(_render(tokenizer, messages[:at], number, ask=True), _render(tokenizer, messages[: at + 1], number)) for at in answers]
    whole = renders[-1][1]
    if all(whole.startswith(text) for pair in renders for text in pair):
        segments, position = [], 0
        for asked, answered in renders:
            segments += [Segment(whole[position : len(asked)], learned=False), Segment(whole[len(asked) : len(answered)], learned=True)]
            position = len(answered)
        yield segments
        return
    for asked, answered in renders:
        # What template and generation prompt have in common is given; what follows is the model's to say.
        common = _common_length(asked, answered)
        yield [Segment(answered[:common], learned=False), Segment(answered[common:], learned=True)]


def _common_length(one: str, other: str) -> int:
    return next((at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), min(len(one), len(other)))


def _render(tokenizer: Any, messages: tuple[Message, ...], number: int, *, ask: bool = False) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask))
    except Exception as error:  # a template is a program of the model's author: it may raise anything
        raise dataset_invalid(f"example {number}: the model's chat template refuses it: {error}; leave out the role that it does not know") from error


def _tokenize(tokenizer: Any, segmented: Iterable[list[Segment]]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield (ids, labels) of each list of segments.

    Segments are tokenized apart, because the served model reads the prompt as one text and then says the answer token by token.
    """
    remaining = iter(segmented)
    while chunk := list(itertools.islice(remaining, CHUNK)):
        plain = [segment.text for segments in chunk for segment in segments if segment.text and not segment.begins]
        begun = [segment.text for segments in chunk for segment in segments if segment.text and segment.begins]
        plain_ids = iter(tokenizer(plain, add_special_tokens=False)["input_ids"] if plain else [])
        begun_ids = iter(tokenizer(begun, add_special_tokens=True)["input_ids"] if begun else [])
        for segments in chunk:
            ids: list[int] = []
            labels: list[int] = []
            for segment in segments:
                if segment.text:
                    found = list(next(begun_ids if segment.begins else plain_ids))
                    ids += found
                    labels += found if segment.learned else [IGNORED] * len(found)
            yield ids, labels
