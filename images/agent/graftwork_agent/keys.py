"""The pod's API keys on their way from the mounted Secret to each engine process."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from graftwork_agent.keys_file import API_VERSION, Entry, KeysFileError, parse

LOG = logging.getLogger("graftwork_agent")
KEYS_FILE = "keys.yaml"


class Keys:
    """The newest good keys, and what is wrong with the file that lies there now. Nothing here holds a key, only hashes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_hash = ""
        self._taken: tuple[str, list[Entry]] | None = None  # the engine process, and what it took
        self.entries: list[Entry] | None = None
        self.error = ""
        self.busy = False

    @property
    def required(self) -> bool:
        """Whether this pod's clients need keys: then the folder is mounted, with or without a Secret behind it."""
        return self._folder.is_dir()

    def read(self) -> bool:
        """Read the file again; returns whether anything is different. What breaks a rule leaves the last good keys in force."""
        if not self.required:
            return False
        before = (self.error, self.entries)
        try:
            data = (self._folder / KEYS_FILE).read_bytes()
        except OSError:
            self._read_hash = ""
            self._wrong(f"the Secret is not there or has no {KEYS_FILE}")
        else:
            self._take(data)
        return before != (self.error, self.entries)

    def _take(self, data: bytes) -> None:
        found = hashlib.sha256(data).hexdigest()
        if found == self._read_hash:
            return
        self._read_hash = found
        try:
            file = parse(data)
        except KeysFileError as error:
            self._wrong(str(error))
            return
        self.entries, self.error = file.entries, ""
        LOG.info("keys.yaml: %d keys", len(self.entries))
        if file.left_out:
            others = len(file.left_out) - 1
            self._wrong(file.left_out[0] + (f" (and {others} more like it)" if others else ""))

    def _wrong(self, text: str) -> None:
        if text != self.error:
            self.error = text
            LOG.error("%s; %s", text, "keys without fault are in force" if self.entries is not None else "nobody is let in")

    def status(self) -> dict[str, Any]:
        """Return what `/status` says of keys: nothing where none are required."""
        return {"keys": {"count": len(self.entries or ()), "error": self.error}} if self.required else {}

    def missing(self, instance: str) -> bool:
        """Whether an engine process does not have the present keys, so that its guard must not be told that it is ready."""
        return self.required and (self.entries is None or self._taken != (instance, self.entries))

    def due(self, instance: str) -> dict[str, Any] | None:
        """Return what is to be sent to an engine process now, or None."""
        if self.busy or self.entries is None or not self.missing(instance):
            return None
        return {"apiVersion": API_VERSION, "instance": instance, "keys": self.entries}

    def taken(self, instance: str, body: dict[str, Any]) -> None:
        """Note that an engine process took what `due` gave."""
        self._taken = (instance, body["keys"])
