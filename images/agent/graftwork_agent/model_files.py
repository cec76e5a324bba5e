"""What a model's source has, and how parts of it are read: the same for a bucket and for a hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from graftwork_store.digest import file_sha256
from graftwork_store.errors import DigestMismatch, SourceChanged, UnsupportedFormat
from graftwork_store.sources import Downloaded, Progress

WEIGHTS_SUFFIX = ".safetensors"
_OTHER_WEIGHTS = (
    *(".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5", ".ot", ".npz", ".gguf", ".ggml", ".nemo"),
    *(".onnx", ".onnx_data", ".pb", ".tflite", ".mlmodel", ".mlpackage", ".engine", ".xml"),
)
_NOT_SERVED = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".pdf", ".mp4", ".mp3", ".wav", ".zip", ".gz", ".tar", ".parquet")
_OTHER_FOLDERS = ("original", "metal", "onnx", "openvino", "coreml", "gguf", "mlx", "assets", "figures", "runs")
_WHOLE_COPY = "consolidated"  # the same weights once more, under the names of their maker's own loader
_SHOWN = 3


@dataclass(frozen=True)
class ModelFile:
    """One file of a source. `mark` is what changes when its content does, and `kind` what it is: only an etag cannot be made of the content."""

    path: str
    size: int
    mark: str
    kind: Literal["sha256", "git", "etag"] = "etag"


class ListedModel(Protocol):
    """A model whose files are listed and can be read, wherever they are. `revision` names exactly this listing."""

    uri: str
    revision: str
    files: tuple[ModelFile, ...]

    def read(self, file: ModelFile, start: int, length: int) -> bytes:
        """Return at most `length` bytes from `start`: fewer where the file ends."""
        ...


class ModelSource(ListedModel, Protocol):
    """One that is elsewhere, and can be brought here."""

    def fetch(self, files: Sequence[ModelFile], to: Path, whole: Callable[[ModelFile, Path], None], progress: Progress | None = None) -> None:
        """Bring files to an empty folder, several at once; `whole` is given each that has come and is the listed one, and moves it."""
        ...

    def download(self, to: Path, progress: Progress | None = None) -> Downloaded:
        """Bring all files to a folder; each appears when it is whole, so that a killed run keeps what it had done."""
        ...


def served(paths: Collection[str]) -> list[str]:
    """Return which files of a repository an engine needs: safetensors and what belongs to them, not the same weights in other formats."""
    kept = [path for path in paths if _is_served(path)]
    weights = [path for path in kept if is_weights(path)]
    copies = {path for path in weights if path.startswith(_WHOLE_COPY)}
    return sorted(path for path in kept if path not in copies or len(copies) == len(weights))


def _is_served(path: str) -> bool:
    parts = PurePosixPath(path).parts
    if any(part.startswith(".") for part in parts) or (len(parts) > 1 and parts[0].lower() in _OTHER_FOLDERS):
        return False
    return not path.lower().endswith((*_OTHER_WEIGHTS, *_NOT_SERVED)) and parts[-1] not in ("README.md", "LICENSE")


def is_weights(path: str) -> bool:
    """Whether it is a file of weights at the top of the folder: those make up the model."""
    return path.endswith(WEIGHTS_SUFFIX) and "/" not in path


def check_format(uri: str, paths: Collection[str]) -> None:
    """Refuse a source without safetensors files, and name the weights that it has instead; raises UnsupportedFormat."""
    if any(is_weights(path) for path in paths):
        return
    others = sorted(path for path in paths if path.lower().endswith((*_OTHER_WEIGHTS, WEIGHTS_SUFFIX)))
    shown = f"it has {', '.join(others[:_SHOWN])}{', …' * (len(others) > _SHOWN)}" if others else f"it has {len(paths)} files and no weights"
    raise UnsupportedFormat(
        f"{uri}: no *{WEIGHTS_SUFFIX} file at its top ({shown}); only safetensors weights in Hugging Face layout are served: name a repository that "
        "has them, or convert the model (save_pretrained of transformers writes them) and upload the result"
    )


def check_listing(source: ModelSource, digest: str) -> None:
    """Refuse a source that has other files than when it was inspected; raises SourceChanged."""
    found = f"sha256:{listing_digest(source.files)}"
    if found != digest:
        raise SourceChanged(
            f"{source.uri}: its files are not those that were inspected ({len(source.files)} files, listing {found}, inspected {digest}): some were "
            "added, removed or written anew; give annotation graftwork.dev/refresh of the LLMDeployment a new text to serve what lies there now, or "
            "put the old files back"
        )


def check_content(uri: str, file: ModelFile, path: Path) -> None:
    """Check that a file on disk is the listed one, as far as the source tells: size, and the hash if it lists one; raises DigestMismatch."""
    size = path.stat().st_size
    if size != file.size:
        raise DigestMismatch(f"{uri}/{file.path}: {size} bytes came, {file.size} are listed; upload the file again")
    found = file.mark
    if file.kind == "sha256":
        found = file_sha256(path)
    elif file.kind == "git":
        found = _git_hash(path, size)
    if found != file.mark:
        raise DigestMismatch(f"{uri}/{file.path}: its {file.kind} hash is {found}, {file.mark} is listed; upload the file again")


def _git_hash(path: Path, size: int) -> str:
    hasher = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()


def listing_digest(files: Iterable[ModelFile]) -> str:
    """Return the sha256 (hex) of names, sizes and marks: another listing has another one."""
    hasher = hashlib.sha256()
    for file in sorted(files, key=lambda item: item.path.encode()):
        hasher.update(f"{file.path}\0{file.size}\0{file.mark}\n".encode())
    return hasher.hexdigest()
