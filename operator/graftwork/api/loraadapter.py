"""LoRAAdapter: one immutable published version."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from graftwork.api import cel
from graftwork.api.base import Model, Resource, field
from graftwork.api.common import ALIAS_BOUNDS, NAME
from graftwork.names import DIGEST_PATTERN


class AdapterBase(Model):
    """What the adapter was trained on."""

    source: str = field("", doc="Where the base model came from, for people.", max_length=1024)
    fingerprint: str = field(
        doc="Fingerprint of the base model's weights: the adapter is served on these weights only.", max_length=71, pattern=DIGEST_PATTERN
    )


class Lineage(Model):
    """Where the adapter came from."""

    job: str = field("", doc="FineTuneJob that made it.", max_length=253, pattern=NAME)
    run: int | None = field(None, doc="Which run of that job.", ge=1, le=1_000_000)
    dataset: str = field("", doc="Digest of the training data.", max_length=128)
    metrics: dict[Annotated[str, Field(max_length=64)], float] = field(
        default_factory=dict, doc="Measured numbers, such as baseLoss and adapterLoss.", max_length=32
    )


class LoRAAdapterSpec(Model):
    """One published version of an adapter."""

    RULES = (
        cel.Rule(
            "size(self.digest) < 19 || self.source.endsWith('/' + self.digest.substring(7, 19))",
            "source must end with the first 12 hex digits of digest: it names the folder of those files; copy both from one published adapter",
        ),
        *cel.immutable(
            ("alias", "version", "owner", "source", "digest", "baseModel", "rank", "lineage"),
            "a LoRAAdapter is one published version. Publish other weights as a new LoRAAdapter with a higher version, "
            "and pin the alias with the LLMDeployment's adapters.aliases to go back",
        ),
    )

    alias: str = field(doc="What clients send as `model`.", **ALIAS_BOUNDS)
    version: int = field(doc="Version of the alias; the highest is served unless the alias is pinned.", ge=1, le=1_000_000_000)
    owner: str = field("", doc="Lineage that the alias belongs to; the FineTuneJob's name when a run published it.", max_length=253, pattern=NAME)
    source: str = field(
        doc="Where the files lie: `store://<namespace>/<alias>/<first 12 hex of the digest>`.",
        min_length=1,
        max_length=1024,
        rules=(
            cel.quoting(
                "self.matches('^store://[a-z0-9][-a-z0-9]*/[a-z0-9][-a-z0-9]*/[0-9a-f]{12}$')",
                "a source is store://<namespace>/<alias>/<first 12 hex digits of the digest>; publish an adapter from elsewhere into the store first",
            ),
        ),
    )
    digest: str = field(doc="Digest of the files; the agent loads nothing else.", max_length=71, pattern=DIGEST_PATTERN)
    base_model: AdapterBase = field(doc="What the adapter was trained on.")
    rank: int = field(doc="Rank of the adapter.", ge=1, le=512)
    lineage: Lineage = field(default_factory=Lineage, doc="Where the adapter came from.")


class LoRAAdapter(Resource):
    """One immutable published version of an adapter."""

    KIND: ClassVar[str] = "LoRAAdapter"

    spec: LoRAAdapterSpec
