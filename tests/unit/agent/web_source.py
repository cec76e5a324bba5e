"""A web server with an adapter, as people have them: redirects, passwords, faults."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web


@dataclass
class Site:
    """Files by path, redirects by path, and what came. With `password`, all but `open_paths` need it as their Authorization."""

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[Callable[[], web.StreamResponse]]] = field(default_factory=dict)
    password: str = ""
    open_paths: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    absent_status: int = 404
    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, given = request.path, request.headers.get("Authorization", "")
        self.seen.append((request.host.partition(":")[0], path, given))
        if self.password and given != self.password and path not in self.open_paths:
            return web.Response(status=401)
        if self.faults.get(path):
            return self.faults[path].pop(0)()
        if path in self.redirects:
            return web.Response(status=302, headers={"Location": self.redirects[path]})
        if path not in self.files:
            return web.Response(status=self.absent_status, text="<html>nothing</html>", content_type="text/html")
        return web.Response(body=self.files[path], headers={"ETag": 'W/"v1"', **self.headers}, content_type="application/octet-stream")


def adapter_bytes(folder: Path) -> dict[str, bytes]:
    """Return a folder's files by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tar_entry(name: str, **changes: object) -> tarfile.TarInfo:
    """Return an entry; `changes` are fields of TarInfo."""
    entry = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(entry, key, value)
    return entry


def make_tar(files: Mapping[str, bytes], extra: tuple[tuple[tarfile.TarInfo, bytes], ...] = (), *, packed: bool = True) -> bytes:
    """Return an archive of files, then of entries that are as wrong as they are given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            tar.addfile(tar_entry(name, size=len(data)), io.BytesIO(data))
        for entry, data in extra:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(buffer.getvalue()) if packed else buffer.getvalue()


def make_zip(files: Mapping[str, bytes], extra: tuple[tuple[zipfile.ZipInfo, bytes], ...] = (), method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return an archive of files, then of entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for entry, data in extra:
            archive.writestr(entry, data)
    return buffer.getvalue()
