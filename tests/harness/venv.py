"""The locked Python tools of the repository in a virtual environment outside the tree: `python3 -m tests.harness.venv` prints its folder.

The folder's name is the hash of the lock file and the interpreter, so another lock is another environment and nothing is ever updated in place.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster import packages
from tests.cluster.cache import cache_root

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "dev.txt"


def ensure() -> Path:
    """Return the environment's folder, made first if it is not there."""
    key = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:16]
    target = cache_root() / "venv" / key
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (target / "complete").exists():
            return target
        shutil.rmtree(target, ignore_errors=True)  # the rest of an interrupted build
        print(f"installing the locked Python tools into {target} (once, about a minute)", file=sys.stderr, flush=True)
        if importlib.util.find_spec("ensurepip") is None:
            packages.ensure(lambda line: print(line, file=sys.stderr))
        subprocess.run((sys.executable, "-m", "venv", str(target)), check=True, stdout=sys.stderr)
        pip = (str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(LOCK))
        subprocess.run(pip, check=True, stdout=sys.stderr)
        (target / "complete").touch()
    return target


if __name__ == "__main__":
    print(ensure())
