"""`install`: puts the guard and the entrypoint where the engine's container finds them, and makes the pod's token."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

TOKEN_FILE = "token"  # noqa: S105 - a name
_GUARD = "graftwork_guard"
_ENTRYPOINT = "entrypoint.py"
_CAUSE = "entrypoint_cause.py"


class InstallError(Exception):
    """The guard could not be put in place."""


def install(to: Path, run_dir: Path, origin: Path | None = None) -> None:
    """Copy guard and entrypoint to `to`, check that the guard can be imported from there, and write the token if there is none.

    Args:
        to: a folder that the engine's container has in PYTHONPATH.
        run_dir: a folder in memory shared by the pod's containers.
        origin: where the two lie; the folder that holds this package by default, in the image and in the repository.
    """
    origin = origin or Path(__file__).resolve().parent.parent
    for name in (_GUARD, _ENTRYPOINT, _CAUSE):
        if not (origin / name).exists():
            raise InstallError(f"{origin / name}: missing; the agent image must carry the guard and the entrypoint")
    to.mkdir(parents=True, exist_ok=True)
    target = to / _GUARD
    if target.exists():
        shutil.rmtree(target)  # a container that is started again finds exactly this image's files
    shutil.copytree(origin / _GUARD, target, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (_ENTRYPOINT, _CAUSE):
        shutil.copyfile(origin / name, to / name)
    (to / _ENTRYPOINT).chmod(0o755)
    _check_import(to)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_token(run_dir / TOKEN_FILE)


def write_token(path: Path) -> None:
    """Write a new random token, readable for the pod's user and group only; one that is there already stays, because the engine may know it."""
    if path.exists():
        return
    partial = path.with_name(f".{path.name}.new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o440)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    partial.chmod(0o440)
    partial.rename(path)


def _check_import(folder: Path) -> None:
    """Import the guard in a process of its own, as the engine will: a guard that cannot be imported would only show minutes later."""
    command = [sys.executable, "-I", "-B", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); import {_GUARD}, {_GUARD}.middleware"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallError(f"{folder / _GUARD}: cannot be imported: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
