"""`make e2e`: prepare the cluster, run the end-to-end tests, and prove that the cluster leaves nothing on the machine.

A cluster that was up before is left up (and not compared): somebody is using it. Arguments are passed to pytest.
"""

from __future__ import annotations

import subprocess
import sys

from tests.cluster import leftovers, lifecycle
from tests.cluster.layout import Layout
from tests.harness import install, venv
from tests.harness.venv import ROOT

RESYNC_SECONDS = 30  # so that "idle" is watched over more than one resync


def run_tests(arguments: list[str]) -> int:
    """Run pytest in the locked environment."""
    python = venv.ensure() / "bin" / "python"
    return subprocess.run((str(python), "-m", "pytest", "-v", "--tb=short", *(arguments or ["tests/e2e"])), cwd=ROOT, check=False).returncode


def main() -> int:
    """Return the tests' exit code, or 1 when they pass and something is left behind."""
    steps = install.Steps()
    layout = Layout.default()
    was_up = lifecycle.phase(layout) == "up"
    before = None if was_up else leftovers.snapshot(layout)
    install.prepare(steps, resyncSeconds=RESYNC_SECONDS)
    code = run_tests(sys.argv[1:])
    if before is None:
        steps.say("the cluster was up before and stays up")
        return code
    lifecycle.down(layout, steps.say)
    left = leftovers.leftovers(before, layout)
    print("\n".join(left) or "the cluster left nothing behind: no process, mount, interface, namespace, iptables rule or cgroup")
    return code or (1 if left else 0)


if __name__ == "__main__":
    sys.exit(main())
