"""The three kinds of `graftwork.dev/v1alpha1` as frozen pydantic models; CRDs and the field reference are generated from them."""

from graftwork.api.base import InvalidObjectError, Metadata
from graftwork.api.finetunejob import FineTuneJob, FineTuneJobSpec
from graftwork.api.llmdeployment import LLMDeployment, LLMDeploymentSpec
from graftwork.api.loraadapter import LoRAAdapter, LoRAAdapterSpec
from graftwork.api.status import FineTuneJobStatus, LLMDeploymentStatus, LoRAAdapterStatus

__all__ = [
    "FineTuneJob",
    "FineTuneJobSpec",
    "FineTuneJobStatus",
    "InvalidObjectError",
    "LLMDeployment",
    "LLMDeploymentSpec",
    "LLMDeploymentStatus",
    "LoRAAdapter",
    "LoRAAdapterSpec",
    "LoRAAdapterStatus",
    "Metadata",
]
