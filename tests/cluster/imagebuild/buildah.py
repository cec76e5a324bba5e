"""Calls of buildah: its storage lies in the cache, it needs no daemon, and `chroot` isolation needs no container runtime."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.cluster.imagebuild.layers import Storage
from tests.cluster.imagebuild.processes import Processes
from tests.cluster.progress import ClusterError

Line = Callable[[str], None]


def _ignore(_: str) -> None:
    """Drop a line."""


class Buildah:
    """Buildah with a storage of its own under `storage`; nothing of the machine's other images is seen or touched."""

    def __init__(self, storage: Path, scratch: Path, processes: Processes) -> None:
        if shutil.which("buildah") is None:
            raise ClusterError("images: no `buildah` in PATH; apt-get install buildah")
        self._processes = processes
        self._storage = storage
        # Buildah's temporary copies are as large as the images; /var/tmp may be small.
        self._environment = {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(scratch)}
        self._driver = self._find_driver()

    def _command(self, *arguments: str, driver: str | None = None) -> list[str]:
        roots = ["--root", str(self._storage / "root"), "--runroot", str(self._storage / "run")]
        return ["buildah", *roots, "--storage-driver", driver or self._driver, *arguments]

    def _find_driver(self) -> str:
        """Overlay copies nothing between layers; vfs, which copies everything, works where overlay cannot be mounted."""
        self._storage.mkdir(parents=True, exist_ok=True)
        known = self._storage / "driver"
        if known.is_file():
            return known.read_text().strip()
        overlay = subprocess.run(self._command("info", driver="overlay"), capture_output=True, text=True, check=False).returncode == 0
        known.write_text("overlay" if overlay else "vfs")
        return known.read_text()

    def _read(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._command(*arguments), capture_output=True, text=True, check=False)

    def has(self, reference: str) -> bool:
        """Whether the storage holds an image of this reference."""
        return self._read("inspect", "--type", "image", "--format", "{{.FromImageID}}", reference).returncode == 0

    def references(self) -> list[str]:
        """All named images of the storage."""
        answer = self._read("images", "--json")
        found = json.loads(answer.stdout or "[]") if answer.returncode == 0 else []
        return [name for image in found or [] for name in image.get("names") or []]

    def build(
        self, what: str, reference: str, context: Path, dockerfile: str, arguments: dict[str, str], mounts: list[str], log: Path, line: Line
    ) -> None:
        """Build one image. Steps that were built before, in any image, are taken from the storage (`--layers`)."""
        command = self._command("bud", "--layers", "--pull-never", "--file", str(context / dockerfile), "--tag", reference)
        for key, value in arguments.items():
            command += ["--build-arg", f"{key}={value}"]
        for mount in mounts:
            command += ["--volume", mount]
        self._processes.run(what, [*command, str(context)], log, line, self._environment)

    def image(self, reference: str) -> tuple[str, bytes]:
        """Id and configuration of an image; the id is the sha256 of the configuration."""
        answer = self._read("inspect", "--type", "image", reference)
        if answer.returncode != 0:
            raise ClusterError(f"{reference}: not in buildah's storage: {answer.stderr.strip()[-300:]}")
        found = json.loads(answer.stdout)
        return str(found["FromImageID"]), str(found["Config"]).encode()

    def layers(self) -> Storage:
        """The layers of the storage."""
        return Storage(self._storage / "root", self._driver)

    def pull(self, what: str, reference: str, archive: Path, log: Path) -> None:
        """Take an image back into the storage from its archive."""
        self._processes.run(what, self._command("pull", "--quiet", f"oci-archive:{archive}"), log, _ignore, self._environment)
        if not self.has(reference):
            raise ClusterError(f"{what}: {archive} does not hold {reference}; remove the file and build again")

    def run(self, reference: str, command: list[str]) -> str:
        """Return what a command prints in a container of an image of the storage; its failure is a CalledProcessError with what it said."""
        container = self._printed("from", "--pull-never", reference).strip()
        try:
            return self._printed("run", container, "--", *command)
        finally:
            self._read("rm", container)

    def _printed(self, *arguments: str) -> str:
        environment = {**os.environ, **self._environment}
        return subprocess.run(self._command(*arguments), capture_output=True, text=True, check=True, env=environment).stdout

    def remove(self, references: list[str]) -> None:
        """Remove images and, with them, the unnamed layers that nothing else uses."""
        for reference in references:
            self._read("rmi", reference)

    def clean_up(self) -> None:
        """Remove working containers that an interrupted build left behind, with their mounts."""
        self._read("rm", "--all")
