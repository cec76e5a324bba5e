"""LoRAAdapter: one immutable published version."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from graftwork.api import cel
from graftwork.api.base import Model, Resource, field
from graftwork.api.common import ALIAS_BOUNDS, NAME
from graftwork.names import DIGEST_PATTERN, STORE_SCHEME

DIGEST_OR_NONE = f"^({DIGEST_PATTERN.removeprefix('^').removesuffix('$')})?$"
_STORED = f"self.source.startsWith('{STORE_SCHEME}')"


class AdapterBase(Model):
    """What the adapter was trained on."""

    source: str = field("", doc="Where the base model came from; matched with an LLMDeployment's `model.compatibleBases`.", max_length=1024)
    fingerprint: str = field(
        "",
        doc="Fingerprint of the base model's weights: the adapter is served on these weights only. An adapter that is imported may leave it out.",
        max_length=71,
        pattern=DIGEST_OR_NONE,
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
            f"!{_STORED} || (has(self.digest) && size(self.digest) > 0 && has(self.rank) && has(self.baseModel) && "
            "has(self.baseModel.fingerprint) && size(self.baseModel.fingerprint) > 0)",
            "a store:// source needs digest, rank and baseModel.fingerprint, as the publisher wrote them; an adapter from anywhere else "
            "(s3://, hf://, https://) is imported and needs none of them",
        ),
        cel.Rule(
            f"!{_STORED} || !has(self.digest) || size(self.digest) < 19 || self.source.endsWith('/' + self.digest.substring(7, 19))",
            "source must end with the first 12 hex digits of digest: it names the folder of those files; copy both from one published adapter",
        ),
        cel.Rule(
            f"!{_STORED} || (!has(self.credentialsSecret) && !has(self.serviceAccountName))",
            "credentialsSecret and serviceAccountName are for an import: a store:// source is read with the store's credentials; remove them",
        ),
        *cel.immutable(
            ("alias", "version", "owner", "source", "digest", "baseModel", "rank", "credentialsSecret", "serviceAccountName", "lineage"),
            "a LoRAAdapter is one published version. Publish other weights as a new LoRAAdapter with a higher version, "
            "and pin the alias with the LLMDeployment's adapters.aliases to go back",
        ),
    )

    alias: str = field(doc="What clients send as `model`.", **ALIAS_BOUNDS)
    version: int = field(doc="Version of the alias; the highest is served unless the alias is pinned.", ge=1, le=1_000_000_000)
    owner: str = field("", doc="Lineage that the alias belongs to; the FineTuneJob's name when a run published it.", max_length=253, pattern=NAME)
    source: str = field(
        doc="Where the files lie: `store://<namespace>/<alias>/<first 12 hex of the digest>`; or from where a Job imports them into the store, once: "
        "`s3://<bucket>/<prefix>`, `hf://<owner>/<repository>[/<folder>][@<revision>]`, `https://<host>/<folder>/`, `https://<host>/<archive>.tar.gz`.",
        min_length=1,
        max_length=1024,
        rules=(cel.ADAPTER_SOURCE, cel.NO_DOTS),
    )
    digest: str = field(
        "",
        doc="Digest of the files; the agent loads nothing else. An import whose files have another digest is refused. Left out of an import: "
        "what the files have, pinned in `status.digest`.",
        max_length=71,
        pattern=DIGEST_OR_NONE,
    )
    base_model: AdapterBase = field(default_factory=AdapterBase, doc="What the adapter was trained on. Left out of an import: what its files name.")
    rank: int | None = field(None, doc="Rank of the adapter. Left out of an import: what its files say.", ge=1, le=512)
    credentials_secret: str = field(
        "",
        doc="Secret of the namespace for the import, mounted into its download container only: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
        "AWS_ENDPOINT_URL, AWS_REGION for s3, HF_TOKEN for hf, AUTHORIZATION (the header's whole value) for https; its `ca.crt` is trusted beside "
        "the system's authorities. Empty: the store's keys for s3 (none with serviceAccountName), none for the others.",
        max_length=253,
        pattern=NAME,
    )
    service_account_name: str = field(
        "",
        doc="ServiceAccount of the import's pod, where a cloud gives accounts access to buckets (IRSA, Workload Identity). The operator's "
        "configuration lists which are allowed (`allowedServiceAccounts`). Empty: the namespace's default.",
        max_length=253,
        pattern=NAME,
    )
    lineage: Lineage = field(default_factory=Lineage, doc="Where the adapter came from.")

    @property
    def imported(self) -> bool:
        """Whether the files have to be brought into the store first."""
        return not self.source.startswith(STORE_SCHEME)


class LoRAAdapter(Resource):
    """One immutable published version of an adapter."""

    KIND: ClassVar[str] = "LoRAAdapter"
    RULES = (cel.dns_label_name("a LoRAAdapter", "its import Job and pod are named after it", "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),)

    spec: LoRAAdapterSpec
