"""What a model's source has, and how parts of it are read: the same for a bucket and for a hub."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from graftwork_store.errors import UnsupportedFormat

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
    """One file of a source. `mark` is what changes when its content does: a sha256, a git hash or an etag."""

    path: str
    size: int
    mark: str


class ModelSource(Protocol):
    """A source that was listed. `revision` names exactly this listing."""

    uri: str
    revision: str
    files: tuple[ModelFile, ...]

    def read(self, file: ModelFile, start: int, length: int) -> bytes:
        """Return at most `length` bytes from `start`: fewer where the file ends."""
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


def listing_digest(files: Iterable[ModelFile]) -> str:
    """Return the sha256 (hex) of names, sizes and marks: another listing has another one."""
    hasher = hashlib.sha256()
    for file in sorted(files, key=lambda item: item.path.encode()):
        hasher.update(f"{file.path}\0{file.size}\0{file.mark}\n".encode())
    return hasher.hexdigest()
