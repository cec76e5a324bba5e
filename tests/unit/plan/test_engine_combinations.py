from __future__ import annotations

from typing import Any

import pytest
from graftwork.api import LLMDeployment
from graftwork.plan import engine_combinations
from graftwork.reasons import Reason

NGRAM = {"method": "ngram", "tokens": 7}


def told(count: int | None, **settings: Any) -> list[str]:
    accelerator = {"types": ["cpu"]} if count == 0 else {"count": count}
    spec = {"model": {"source": "s3://m/tiny"}, "accelerator": accelerator, "engine": settings}
    found = engine_combinations.problems(LLMDeployment.from_object({"metadata": {"name": "tiny", "namespace": "ml"}, "spec": spec}))
    assert all(problem.reason is Reason.UNSUPPORTED_COMBINATION and problem.needs_user for problem in found)
    return [problem.message for problem in found]


REFUSED: list[tuple[int | None, dict[str, Any], str, str]] = [
    (2, {"parallelism": {"tensor": 4}}, "asks for 4 workers (4 x 1 x 1", "a pod has 2 (accelerator.count)"),
    (4, {"parallelism": {"tensor": 4, "pipeline": 2}}, "asks for 8 workers (4 x 2 x 1", "raise accelerator.count"),
    (4, {"parallelism": {"pipeline": 3}}, "pipeline is 3, which does not divide the pod's 4 GPUs", "choose a divisor"),
    (4, {"parallelism": {"data": 3}}, "uses 3 GPUs (1 x 1 x 3: tensor, pipeline and data), and a pod has 4", "make the two equal"),
    (8, {"parallelism": {"tensor": 2, "pipeline": 2, "data": 4}}, "uses 16 GPUs (2 x 2 x 4", "a pod has 8"),
    (4, {"parallelism": {"data": 2}, "args": {"prefill-context-parallel-size": 2}}, "uses 8 GPUs", "a pod has 4"),
    (0, {"parallelism": {"data": 2}}, "shares GPUs, and accelerator.types is cpu", "use spec.replicas"),
    (None, {"args": {"tensor-parallel-size": 2}}, "asks for 2 workers", "a pod has 1"),
    (2, {"args": {"tensor_parallel_size": "2", "prefill-context-parallel-size": 2}}, "asks for 4 workers (2 x 1 x 2", "a pod has 2"),
    (2, {"args": {"tensor-parallel-size": 4}, "image": "mine:1"}, "asks for 4 workers", "a pod has 2"),
    (1, {"dtype": "float32", "quantization": "fp8"}, "dtype is float32, and quantization fp8 takes bfloat16 or float16", "leave dtype out"),
    (1, {"maxNumSeqs": 256, "speculative": NGRAM, "args": {"max-num-batched-tokens": 2047}}, "each need 2048", "raise it"),
    (1, {"speculative": NGRAM, "args": {"async-scheduling": True}}, "refuses with speculative.method ngram", "ngram_gpu"),
    (0, {"speculative": NGRAM, "args": {"async-scheduling": True}}, "refuses with speculative.method ngram", "remove it"),
    (1, {"args": {"speculative-config": '{"method":"dspark","enable_adaptive_verification":true}'}}, "enable_adaptive_verification", "remove it"),
    (1, {"args": {"speculative-config.enable_adaptive_verification": True}}, "enable_adaptive_verification", "remove it"),
    (1, {"args": {"enable-auto-tool-choice": True}}, "enable-auto-tool-choice", "add tool-call-parser"),
    (1, {"args": {"enable_log_outputs": None}}, "enable-log-outputs", "add enable-log-requests"),
]

TAKEN: list[tuple[int | None, dict[str, Any]]] = [
    (None, {}),
    (4, {"parallelism": {"tensor": 2, "pipeline": 2}}),
    (4, {"parallelism": {"tensor": 2}}),
    (4, {"parallelism": {"data": 4}}),
    (8, {"parallelism": {"pipeline": 2, "data": 2}}),
    (4, {"parallelism": {"tensor": 3, "pipeline": 1}}),
    (0, {"parallelism": {"tensor": 2}}),
    (1, {"args": {"tensor-parallel-size": 2, "distributed-executor-backend": "ray"}}),
    (1, {"dtype": "float32"}),
    (1, {"dtype": "float16", "quantization": "awq"}),
    (1, {"dtype": "float32", "quantization": "compressed-tensors"}),
    (1, {"dtype": "float32", "quantization": "fp8", "image": "mine:1"}),
    (1, {"maxNumSeqs": 256, "speculative": NGRAM, "args": {"max-num-batched-tokens": 2048}}),
    (1, {"maxNumSeqs": 256, "speculative": NGRAM, "args": {"max-num-batched-tokens": "2k"}}),
    (1, {"speculative": NGRAM, "args": {"max-num-batched-tokens": 16}}),
    (1, {"speculative": NGRAM, "args": {"async-scheduling": False}}),
    (1, {"speculative": {"method": "ngram_gpu", "tokens": 3}, "args": {"async-scheduling": True}}),
    (1, {"args": {"speculative-config": "not JSON", "speculative-config.method": "ngram"}}),
    (1, {"args": {"enable-auto-tool-choice": True, "tool-call-parser": "hermes"}}),
    (1, {"args": {"tool-call-parser": "hermes", "enable-log-requests": True, "enable-log-outputs": True}}),
]


@pytest.mark.parametrize(("count", "settings", "reason", "remedy"), REFUSED, ids=str)
def test_what_the_engine_would_refuse_is_refused_with_reason_and_remedy(
    count: int | None, settings: dict[str, Any], reason: str, remedy: str
) -> None:
    (message,) = told(count, **settings)
    assert reason in message
    assert remedy in message


@pytest.mark.parametrize(("count", "settings"), TAKEN, ids=str)
def test_what_may_work_is_taken(count: int | None, settings: dict[str, Any]) -> None:
    assert told(count, **settings) == []
