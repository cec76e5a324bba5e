"""What has to exist before the Dockerfile of an image that is one static program: its binary.

Apart from `rootfs`, which is an input of the base image: a program more must not rebuild every image.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster.toolchain import Say, build_tools

PROGRAMS = ("prometheus",)  # image and tool of one name


def put(name: str, context: Path, say: Say) -> None:
    """Put the static binary and the two folders that a scratch image lacks into the context."""
    shutil.copy2(build_tools(say, [name]) / name, context / name)
    (context / name).chmod(0o755)
    for folder, mode in (("data", 0o755), ("tmp", 0o1777)):
        (context / folder).mkdir()
        (context / folder).chmod(mode)
