"""What the agent reads from mounted files: adapters.json, the pod's annotation, the base model."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from graftwork_agent.desired import Desired, DesiredError, content_hash, parse

LOG = logging.getLogger("graftwork_agent")
ADAPTERS_FILE = "adapters.json"
ANNOTATION_FILE = "adapters-hash"
_HASH = re.compile(r"[0-9a-f]{64}")


class Inputs:
    """The newest readable state of the mounted files; what cannot be read leaves the last good state in force."""

    def __init__(self, config_dir: Path, podinfo_dir: Path) -> None:
        self._config = config_dir / ADAPTERS_FILE
        self._annotation = podinfo_dir / ANNOTATION_FILE
        self._bad_hash = ""
        self.desired: Desired | None = None
        self.expected_hash = ""

    def read(self) -> bool:
        """Read the files again; returns whether anything is different."""
        before = (self.desired.hash if self.desired else "", self.expected_hash)
        self._read_annotation()
        self._read_desired()
        return before != (self.desired.hash if self.desired else "", self.expected_hash)

    def _read_annotation(self) -> None:
        try:
            text = self._annotation.read_text(errors="replace").strip()
        except OSError:
            text = ""
        self.expected_hash = text if _HASH.fullmatch(text) else ""

    def _read_desired(self) -> None:
        try:
            data = self._config.read_bytes()
        except OSError:
            return
        found = content_hash(data)
        if (self.desired and self.desired.hash == found) or found == self._bad_hash:
            return
        try:
            self.desired = parse(data)
        except DesiredError as error:
            self._bad_hash = found
            LOG.error("%s: %s; the last good one stays in force", self._config, error)
        else:
            self._bad_hash = ""
            LOG.info("adapters.json %s: %d adapters, %d aliases", found[:12], len(self.desired.adapters), len(self.desired.aliases))
