"""On which base models an adapter may be served that was not trained on exactly these weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from graftwork.facts.adapters import Adapter

_HUB = ("hf://", "https://huggingface.co/")


def normal(source: str) -> str:
    """Return a source as sources are compared: adapter_config.json says `Qwen/Qwen3-8B` where a spec says `hf://Qwen/Qwen3-8B@main`."""
    text = source.strip()
    for prefix in _HUB:
        text = text.removeprefix(prefix)
    return text.rstrip("/") if "://" in text else text.partition("@")[0].rstrip("/")


def normals(sources: Iterable[str]) -> frozenset[str]:
    """Return several sources as sources are compared."""
    return frozenset(normal(source) for source in sources)


def declared(adapter: Adapter, fingerprints: frozenset[str], compatible: frozenset[str]) -> Adapter:
    """Return the adapter, marked as compatible if its own base is another one that the user declared to be."""
    if not adapter.fingerprint or adapter.fingerprint in fingerprints or normal(adapter.base_source) not in compatible:
        return adapter
    return replace(adapter, compatible=bool(adapter.base_source))


def mismatch(adapter: Adapter, where: str, fingerprints: frozenset[str]) -> str:
    """Return what is wrong with an adapter of another base, and what would help."""
    declare = f", or add {adapter.base_source} to model.compatibleBases if its tensors have the same shapes" if adapter.base_source else ""
    return (
        f"spec.baseModel.fingerprint is {adapter.fingerprint}, but {where} serves {' and '.join(sorted(fingerprints))}: an adapter works on the "
        f"weights that it was trained on only; train it again on this base, or serve the base that it was trained on{declare}"
    )
