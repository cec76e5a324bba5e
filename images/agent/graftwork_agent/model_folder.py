"""A model in a folder that is mounted: what it has, read by the same code as one of a hub or a bucket."""

from __future__ import annotations

from pathlib import Path

from graftwork_agent.model_files import ModelFile, listing_digest


class FolderModel:
    """The files at the top of a folder, where a model has its configuration and its weights. A claim has no commits: the listing is the revision."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.uri = str(folder)
        self.files = tuple(_file(path) for path in sorted(folder.iterdir()) if path.is_file())
        self.revision = listing_digest(self.files)

    def read(self, file: ModelFile, start: int, length: int) -> bytes:
        """Return a part of a file: fewer bytes where it ends."""
        with (self._folder / file.path).open("rb") as opened:
            opened.seek(start)
            return opened.read(length)


def _file(path: Path) -> ModelFile:
    found = path.stat()
    return ModelFile(path.name, found.st_size, str(found.st_mtime_ns))
