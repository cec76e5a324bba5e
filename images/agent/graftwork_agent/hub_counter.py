"""Counts what the hub's library has fetched, by what it knows of such: a class of progress bars."""

from __future__ import annotations

import threading
from typing import Any, Self

from graftwork_store.errors import StoreError
from graftwork_store.sources import Progress


class Stopped(StoreError):  # noqa: N818 - it is no fault
    """A file is not fetched to its end, since another one failed."""


class Counter:
    """Bytes of several files that come at once. A file never counts for more than its size, however often it is fetched."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._lock = threading.Lock()
        self._files: dict[str, int] = {}
        self._stopped = False
        self._done = 0

    def stop(self) -> None:
        """End what is being fetched at its next bytes."""
        self._stopped = True

    def bar(self, path: str, size: int) -> type:
        """Return a class of progress bars for one file, as the library wants it; what counted of the file before counts no more."""
        self._set(path, 0)
        counter, come = self, 0

        class Bar:
            def __init__(self, *_: Any, **__: Any) -> None:
                """Take what a bar of tqdm takes."""

            def __enter__(self) -> Self:
                return self

            def __exit__(self, *_: object) -> None:
                """Leave no trace."""

            def update(self, count: float | None = 1) -> None:
                """Count bytes; the library takes some back when it has to begin anew."""
                nonlocal come
                if counter._stopped:
                    raise Stopped(f"{path}: not fetched to its end, since another file failed")
                come += int(count or 0)
                counter._set(path, max(0, min(come, size)))

            def close(self) -> None:
                """Leave no trace."""

        return Bar

    def whole(self, path: str, size: int) -> None:
        """Count a file in full."""
        self._set(path, size)

    def _set(self, path: str, size: int) -> None:
        with self._lock:
            before = self._files.get(path, 0)
            self._files[path] = size
            self._done += size - before
            if self._progress and size != before:
                self._progress(self._done, self._total)
