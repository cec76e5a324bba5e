"""`make e2e`: prepare the cluster, run the end-to-end tests, and prove that the cluster leaves nothing on the machine.

A cluster that was up before is left up (and not compared): somebody is using it. Arguments are passed to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.cluster import leftovers, lifecycle
from tests.cluster.layout import Layout
from tests.harness import install, machine, venv
from tests.harness.kube import Kube
from tests.harness.venv import ROOT

KINDS = "finetunejobs,loraadapters,llmdeployments"
RESYNC_SECONDS = 20  # so that "idle" is watched over more than one resync


def run_tests(arguments: list[str]) -> int:
    """Run pytest in the locked environment."""
    python = venv.ensure() / "bin" / "python"
    return subprocess.run((str(python), "-m", "pytest", "-v", "--tb=short", *(arguments or ["tests/e2e"])), cwd=ROOT, check=False).returncode


def empty(kube: Kube, steps: install.Steps) -> None:
    """Remove what an earlier run or the demo made: the last test uninstalls Graftwork, which would leave their finalizers behind."""
    for namespace in (install.DEMO_NAMESPACE, install.TEST_NAMESPACE):
        if kube.within(namespace).list(KINDS):
            steps.say(f"removing the resources in namespace {namespace}")
            kube.within(namespace).delete(KINDS, "--all")
    kube.within(install.TEST_NAMESPACE).delete("jobs", "--all")


def main() -> int:
    """Return the tests' exit code, or 1 when they pass and something is left behind."""
    steps = install.Steps()
    layout = Layout.default()
    was_up = lifecycle.phase(layout) == "up"
    before = None if was_up else leftovers.snapshot(layout)
    os.environ.update(machine.mark_run() if was_up else {machine.RUN_BEGAN: "0"})
    try:
        environment = install.prepare(steps, resyncSeconds=RESYNC_SECONDS)
        empty(environment.kube, steps)
        code = run_tests(sys.argv[1:])
    finally:  # an interrupted run leaves no cluster behind either
        if before is None:
            steps.say("the cluster was up before and stays up")
        else:
            lifecycle.down(layout, steps.say)
    if before is None:
        return code
    left = leftovers.leftovers(before, layout)
    print("\n".join(left) or "the cluster left nothing behind: no process, mount, interface, namespace, iptables rule or cgroup")
    return code or (1 if left else 0)


if __name__ == "__main__":
    sys.exit(main())
