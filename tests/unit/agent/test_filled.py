"""What a fill may remove from a claim, whoever put things there."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from graftwork_agent.filled import API_VERSION, MANIFEST, Claim
from graftwork_store.errors import FillFailed
from hypothesis import example, given
from hypothesis import strategies as st

OWN = "0" * 12
KEYS = st.sampled_from([OWN, *(f"{number:012x}" for number in range(1, 6))])
OURS = st.one_of(KEYS.map(lambda key: f"models/{key}"), KEYS.map(lambda key: f".filling-{key}"), KEYS.map(lambda key: f".pruned-{key}.{key}"))
FOREIGN = st.one_of(
    KEYS.map(lambda key: f"models/{key}0"),
    KEYS.map(lambda key: f"models/{key[:-1]}"),
    KEYS.map(lambda key: f"models/{key[:-1]}G"),
    KEYS.map(lambda key: f"{key}"),
    KEYS.map(lambda key: f".filling-{key}-mine"),
    KEYS.map(lambda key: f"filling-{key}"),
    KEYS.map(lambda key: f".pruned-{key}x"),
    KEYS.map(lambda key: f"compile/{key}"),
    KEYS.map(lambda key: f"models/.filling-{key}"),
    st.sampled_from(["lost+found", ".snapshot", "models/readme", "notes"]),
)
CONTENT = st.sampled_from(["manifest", "another version", "no JSON", "none"])


def write(root: Path, name: str, content: str) -> Path:
    """Make a folder with a file in it, and perhaps a manifest."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").write_text(name)
    (folder / MANIFEST).unlink(missing_ok=True)
    texts = {
        "manifest": json.dumps({"apiVersion": API_VERSION}),
        "another version": '{"apiVersion": "graftwork.dev/cached-model/v9"}',
        "no JSON": "{",
    }
    if content in texts:
        (folder / MANIFEST).write_text(texts[content])
    return folder


@given(ours=st.dictionaries(OURS, CONTENT, max_size=8), foreign=st.dictionaries(FOREIGN, CONTENT, max_size=6), keep=st.sets(KEYS, max_size=3))
@example(ours={"models/" + OWN: "manifest", "models/" + f"{1:012x}": "manifest"}, foreign={}, keep=set())
def test_only_models_with_a_manifest_that_nobody_keeps_and_remains_are_removed(ours: dict[str, str], foreign: dict[str, str], keep: set[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for name, content in (foreign | ours).items():
            write(root, name, content)
        removed = Claim(root, OWN).prune(sorted(keep))
        kept = {OWN, *keep}
        for name in foreign:
            assert (root / name / "data").exists(), f"{name} is nobody's that a fill knows"
        expected = {name.partition("/")[2] for name, content in ours.items() if name.startswith("models/") and content == "manifest"} - kept
        assert removed == sorted(expected)
        for name, content in ours.items():
            key = name[-12:]
            if name.startswith("models/"):
                gone = content == "manifest" and key not in kept
            elif name.startswith(".filling-"):
                gone = key not in kept or (key == OWN and ours.get(f"models/{OWN}") == "manifest")
            else:
                gone = True
            assert (root / name).exists() is not gone, (name, content)


def test_a_link_out_of_the_claim_is_not_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", "model", "manifest")
    (tmp_path / "claim/models").mkdir(parents=True)
    for name in (f"models/{1:012x}", f".filling-{1:012x}", f".pruned-{1:012x}"):
        (tmp_path / "claim" / name).symlink_to(outside)
    assert Claim(tmp_path / "claim", OWN).prune([]) == []
    assert sorted(os.listdir(outside)) == [MANIFEST, "data"]


def test_what_cannot_be_removed_stays_and_the_rest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        write(tmp_path, f"models/{number:012x}", "manifest")
    real = os.rename

    def refuse(source: Path, target: Path) -> None:
        if Path(source).name == f"{1:012x}":
            raise PermissionError(13, "Permission denied")
        real(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    assert Claim(tmp_path, OWN).prune([]) == [f"{2:012x}"]
    assert (tmp_path / "models" / f"{1:012x}" / "data").exists()


def test_the_halves_of_an_attempt_that_lives_stay_and_those_of_a_killed_one_go(tmp_path: Path) -> None:
    other = f"{1:012x}"
    with Claim(tmp_path, OWN).attempt() as mine, Claim(tmp_path, other).attempt() as theirs:
        (theirs / "half").write_text("x")
        killed = tmp_path / f".filling-{OWN}.{2:012x}"
        killed.mkdir()
        (killed / "lock").touch()
        with Claim(tmp_path, OWN).attempt() as next_one:
            assert not killed.exists()
            assert mine.is_dir()
            Claim(tmp_path, OWN).prune([])
            assert (theirs / "half").exists()
            assert next_one.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_filesystem_without_locks_costs_an_attempt_and_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    claim = Claim(tmp_path, OWN)
    with claim.attempt() as first:
        with claim.attempt() as second:
            assert not first.exists(), "nothing tells that it lives"
            (second / "file").write_text("x")
            claim.place("file", second / "file")
        with pytest.raises(FillFailed, match="tried again"):
            claim.place("other", first / "other")
    assert (claim.filling / "file").read_text() == "x"
