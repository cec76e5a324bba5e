from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from graftwork_agent.__main__ import main
from graftwork_agent.install import InstallError, install, write_token


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """Return a folder laid out like the image's /opt/graftwork."""
    guard = tmp_path / "opt" / "graftwork_guard"
    guard.mkdir(parents=True)
    (guard / "__init__.py").write_text("")
    (guard / "middleware.py").write_text("import json\n")
    (tmp_path / "opt" / "entrypoint.py").write_text("print('entry')\n")
    (tmp_path / "opt" / "entrypoint_cause.py").write_text("")
    return tmp_path / "opt"


def test_the_images_own_guard_is_installed_and_can_be_imported(tmp_path: Path) -> None:
    assert main(["install", "--to", str(tmp_path / "bin"), "--run-dir", str(tmp_path / "run")]) == 0
    assert (tmp_path / "bin" / "graftwork_guard" / "middleware.py").is_file()
    assert stat.S_IMODE((tmp_path / "bin" / "entrypoint.py").stat().st_mode) == 0o755


def test_the_token_is_random_and_closed_to_the_world(tmp_path: Path, origin: Path) -> None:
    tokens = []
    for run in ("a", "b"):
        install(tmp_path / "bin", tmp_path / run, origin)
        path = tmp_path / run / "token"
        assert stat.S_IMODE(path.stat().st_mode) == 0o440
        assert re.fullmatch(r"[0-9a-f]{64}", path.read_text())
        assert [item.name for item in (tmp_path / run).iterdir()] == ["token"]
        tokens.append(path.read_text())
    assert tokens[0] != tokens[1]


def test_a_token_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0" * 64)
    write_token(tmp_path / "token")
    assert (tmp_path / "token").read_text() == "0" * 64


def test_installing_again_leaves_exactly_this_images_files(tmp_path: Path, origin: Path) -> None:
    install(tmp_path / "bin", tmp_path / "run", origin)
    (tmp_path / "bin" / "graftwork_guard" / "old.py").write_text("")
    install(tmp_path / "bin", tmp_path / "run", origin)
    assert sorted(path.name for path in (tmp_path / "bin" / "graftwork_guard").iterdir()) == ["__init__.py", "middleware.py"]


def test_a_guard_that_cannot_be_imported_fails_the_install_with_the_cause(tmp_path: Path, origin: Path) -> None:
    (origin / "graftwork_guard" / "middleware.py").write_text("import no_such_module\n")
    with pytest.raises(InstallError, match="No module named 'no_such_module'"):
        install(tmp_path / "bin", tmp_path / "run", origin)


@pytest.mark.parametrize("name", ["graftwork_guard", "entrypoint.py", "entrypoint_cause.py"])
def test_an_image_without_the_guard_or_the_entrypoint_is_named(tmp_path: Path, origin: Path, name: str) -> None:
    (origin / name).rename(tmp_path / "away")
    with pytest.raises(InstallError, match=f"{name}: missing"):
        install(tmp_path / "bin", tmp_path / "run", origin)
