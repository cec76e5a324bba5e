"""Command line of the cluster."""
from __future__ import annotations

import sys

from tests.cluster.layout import Layout
from tests.cluster.lifecycle import down, up
from tests.cluster.progress import ClusterError, Progress
from tests.cluster.toolchain import build_tools


def main() -> int:
    say = Progress()
    layout = Layout.default()
    try:
        if sys.argv[1] == "up":
            up(layout, build_tools(say), say)
            print(f"export KUBECONFIG={layout.kubeconfig}")
        else:
            down(layout, say)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
