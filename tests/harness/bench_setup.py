"""Time one of the README's commands as a whole and record it: `make bench-setup WHAT={demo-cold|demo-warm|test-warm}`.

`demo-cold` uses an empty cache folder of its own (removed afterwards), so that everything is downloaded and built again, Go's build cache included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time

from tests.harness import records
from tests.harness.venv import ROOT

COMMANDS = {
    "build-cold": ("every program and image built with empty caches (Debian packages there)", ("python3", "-m", "tests.harness.install"), 30 * 60),
    "demo-cold": ("make demo with empty caches", ("make", "demo"), 35 * 60),
    "demo-warm": ("make demo with warm caches", ("make", "demo"), 4 * 60),
    "test-warm": ("make test with warm caches", ("make", "test"), (15 + 6 + 8) * 60),  # loop, adapters, serving
}


def main() -> None:
    """Run the command and write its seconds to docs/benchmarks/loop.json."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("what", choices=sorted(COMMANDS))
    what = options.parse_args().what
    figure, command, limit = COMMANDS[what]
    if what != "build-cold":
        subprocess.run(("make", "cluster-down"), cwd=ROOT, check=True)
    scratch = tempfile.mkdtemp(prefix="graftwork-cold-", dir="/var/tmp") if "empty" in figure else ""
    own = (
        {"GRAFTWORK_CACHE": scratch, "GOCACHE": f"{scratch}/go-build", "GOMODCACHE": f"{scratch}/go-mod", "PIP_NO_CACHE_DIR": "1"} if scratch else {}
    )
    environment = {**os.environ, **own}
    began = time.monotonic()
    try:
        subprocess.run(command, cwd=ROOT, check=True, env=environment)
        took = time.monotonic() - began
    finally:
        if scratch:
            if what != "build-cold":
                subprocess.run(("make", "cluster-down"), cwd=ROOT, check=False, env=environment)
            subprocess.run(("chmod", "-R", "u+w", scratch), check=False)
            shutil.rmtree(scratch, ignore_errors=True)
    print(records.write("loop", f"make bench-setup WHAT={what}", [records.Figure(figure, round(took), "s", limit, [round(took, 1)])]))


if __name__ == "__main__":
    main()
