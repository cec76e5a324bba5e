"""Where things lie: the checkout, the cache, the folder of local wheels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cache import cache_root

REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Places:
    """The folders of one run of the image builder; tests give their own."""

    repository: Path
    cache: Path
    wheels: Path

    @property
    def archives(self) -> Path:
        """Finished OCI archives, `<name>-<tag>.oci.tar`."""
        return self.cache / "images"

    @property
    def layers(self) -> Path:
        """Compressed layers, each once; archives are made of them."""
        return self.cache / "images" / "layers"

    @property
    def logs(self) -> Path:
        """Full output of each build, `<name>-<tag>.log`."""
        return self.cache / "images" / "logs"

    @property
    def work(self) -> Path:
        """Half-made things; emptied at the start of each build."""
        return self.cache / "images" / "work"

    @property
    def storage(self) -> Path:
        """Buildah's own storage."""
        return self.cache / "buildah"


def default_places() -> Places:
    """The checkout that this file belongs to, with `GRAFTWORK_CACHE` and `GRAFTWORK_WHEELS` respected."""
    wheels = os.environ.get("GRAFTWORK_WHEELS")
    return Places(REPOSITORY, cache_root(), Path(wheels) if wheels else REPOSITORY.parent / "shared" / "wheels")
