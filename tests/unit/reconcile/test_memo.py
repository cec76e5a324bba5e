from __future__ import annotations

from graftwork.reconcile.memo import Last, Memo


def test_what_is_known_is_not_made_again_and_the_oldest_is_forgotten() -> None:
    made: list[str] = []

    def make(text: str) -> str:
        made.append(text)
        return text.upper()

    memo: Memo[str, str] = Memo(2)
    assert [memo.get(key, lambda key=key: make(key)) for key in ("a", "b", "a", "c", "a", "b")] == ["A", "B", "A", "C", "A", "B"]  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"], "b was the one that nobody had asked for"


def test_a_result_is_made_anew_from_something_else_only() -> None:
    last: Last[str, list[int]] = Last(8)
    first = last.get("tiny", [1, 2], lambda: [3])
    assert last.get("tiny", [1, 2], lambda: [4]) is first
    assert last.get("other", [1, 2], lambda: [5]) == [5]
    assert last.get("tiny", [1], lambda: [6]) == [6]
    assert last.get("tiny", [1, 2], lambda: [7]) == [7]
