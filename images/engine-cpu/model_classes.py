"""Have vLLM inspect the classes of the named architectures, which fills its cache of model facts (VLLM_CACHE_ROOT/modelinfos)."""

import sys

from vllm.model_executor.models.registry import ModelRegistry

for architecture in sys.argv[1:]:
    model = ModelRegistry.models[architecture]
    model.inspect_model_cls()
    print(f"graftwork: inspected {architecture}")
