"""Where results are kept, and that their names change with each of their inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import toolchain
from tests.cluster.cache import cache_root, cluster_root, digest_of, write_atomically


@pytest.mark.parametrize(
    ("environ", "cache", "cluster"),
    [
        ({"HOME": "/h"}, "/h/.cache/graftwork", "/h/.cache/graftwork/cluster"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/graftwork", "/x/graftwork/cluster"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x", "GRAFTWORK_CACHE": "/g"}, "/g", "/g/cluster"),
        ({"HOME": "/h", "GRAFTWORK_CLUSTER": "/c"}, "/h/.cache/graftwork", "/c"),
    ],
)
def test_the_most_specific_variable_decides_where_things_lie(environ: dict[str, str], cache: str, cluster: str) -> None:
    assert cache_root(environ) == Path(cache)
    assert cluster_root(environ) == Path(cluster)


def test_a_digest_tells_the_same_bytes_in_other_parts_apart() -> None:
    assert digest_of(["ab", "c"]) != digest_of(["a", "bc"])
    assert digest_of([b"ab", "c"]) == digest_of(["ab", b"c"])


def test_the_key_of_a_tool_changes_with_every_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "TOOLS", tmp_path)
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "go.mod").write_text("module x\n")
    (folder / "go.sum").write_text("")
    keys = [toolchain.Tool("x", ("x",), "").key("go1.26.1"), toolchain.Tool("x", ("x",), "").key("go1.26.2")]
    keys.append(toolchain.Tool("x", ("x",), "", (("a.b", "1"),)).key("go1.26.1"))
    (folder / "go.sum").write_text("m v1 h1:x\n")
    keys.append(toolchain.Tool("x", ("x",), "").key("go1.26.1"))
    (folder / "go.mod").write_text("module x\n\ngo 1.26\n")
    keys.append(toolchain.Tool("x", ("x",), "").key("go1.26.1"))
    assert len(set(keys)) == len(keys)


def test_an_atomic_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "f"
    write_atomically(target, "one", 0o600)
    write_atomically(target, "two", 0o600)
    assert target.read_text() == "two"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [target]
