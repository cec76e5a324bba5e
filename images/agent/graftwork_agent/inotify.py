"""File changes as they happen: Linux inotify on the event loop, without a thread and without wake-ups while nothing changes."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

_IN_MODIFY, _IN_CLOSE_WRITE, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE = 0x2, 0x8, 0x80, 0x100, 0x200
_MASK = _IN_MODIFY | _IN_CLOSE_WRITE | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
_EVENT = struct.calcsize("iIII")


class FolderWatch:
    """Calls back when something in a folder is made, renamed, written or removed.

    The kubelet changes a volume by renaming a link called `..data` in its top folder, which is one event here.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1: raise fs.inotify.max_user_instances on the node")
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def add(self, folder: Path) -> None:
        """Watch a folder (not what lies below its subfolders); raises OSError."""
        if self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK) < 0:
            raise OSError(ctypes.get_errno(), f"{folder}: cannot be watched")

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        if len(data) >= _EVENT:  # which file it was does not matter: what is read is compared by content
            self._changed()
