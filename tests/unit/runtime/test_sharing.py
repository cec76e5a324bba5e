from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
from graftwork.cluster.sharing import LONG, Sharing
from hypothesis import given
from hypothesis import strategies as st

SPEC: dict[str, Any] = {"probe": {"path": "/health", "periods": [1, 5]}, "env": [{"name": "A", "value": "1"}, {"name": "B"}], "empty": {}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.text(max_size=3),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=2), children, max_size=4),
    max_leaves=20,
)


def exact(value: Any) -> Any:
    """The value with the types of its parts, in their order: 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return [(key, exact(child)) for key, child in value.items()]
    return [exact(child) for child in value] if isinstance(value, list) else (type(value), value)


def test_equal_values_become_one_and_their_equal_parts_too() -> None:
    sharing = Sharing()
    first, second = sharing.shared(copy.deepcopy(SPEC)), sharing.shared(copy.deepcopy(SPEC))
    other = sharing.shared({**copy.deepcopy(SPEC), "name": "another"})
    assert first is second
    assert other is not first
    assert other["probe"] is first["probe"]
    assert other["env"] is first["env"]
    assert first == SPEC


@given(st.lists(JSON, max_size=6))
def test_whatever_was_shared_before_a_value_stays_what_it_is(values: list[Any]) -> None:
    sharing = Sharing(lately=3)
    assert [exact(each) for each in [sharing.shared(value) for value in values]] == [exact(value) for value in values]


@pytest.mark.parametrize("pair", [(1, True), (0, False), (1, 1.0), ("1", 1), ({}, []), (None, False)])
def test_what_python_calls_equal_and_an_object_does_not_stays_apart(pair: tuple[Any, Any]) -> None:
    sharing = Sharing()
    for value in pair:
        assert exact(sharing.shared({"a": [value]})) == exact({"a": [value]})


def test_nothing_that_nobody_brings_again_is_held() -> None:
    sharing = Sharing(lately=10)
    for number in range(1000):
        sharing.shared({"number": str(number), "part": {"of": str(number)}})
    gc.collect()
    held = [each for each in gc.get_objects() if type(each) is dict and set(each) == {"number", "part"}]
    assert len(held) <= 2 * 10


def test_what_is_brought_again_and_again_outlives_what_is_not() -> None:
    sharing = Sharing(lately=10)
    common = sharing.shared({"path": "/health"})
    for number in range(1000):
        sharing.shared([str(number)])
        assert sharing.shared({"path": "/health"}) is common


def test_a_long_text_and_what_it_is_a_part_of_are_not_held() -> None:
    sharing = Sharing()
    value = {"data": {"adapters.json": "x" * (LONG + 1), "other": {"a": "b"}}}
    first, second = sharing.shared(copy.deepcopy(value)), sharing.shared(copy.deepcopy(value))
    assert first == second == value
    assert first["data"] is not second["data"]
    assert first["data"]["other"] is second["data"]["other"]
