"""Every route that vLLM would serve, for models of every task: run inside the engine's container, it builds vLLM's own routers and no engine.

Printed is one line of JSON: task -> paths. Whatever a flag or a variable could add to the routes is switched on.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from types import SimpleNamespace

os.environ |= {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ENABLE_COHERE_API": "1", "VLLM_PLUGINS": "", "VLLM_LOGGING_LEVEL": "ERROR"}


def routes(task: str) -> list[str]:
    """Return the paths for a model of one task."""
    from fastapi import FastAPI
    from vllm.config import ProfilerConfig
    from vllm.entrypoints.launchers.api_server.routers import register_api_routers
    from vllm.tasks import POOLING_TASKS

    app = FastAPI()
    app.state.args = Namespace(enable_fault_tolerance=True, enable_scale_out=True, tokens_only=True, profiler_config=ProfilerConfig(profiler="cuda"))
    model = SimpleNamespace(
        get_pooling_task=lambda tasks: next((each for each in tasks if each in POOLING_TASKS), None), hf_config=SimpleNamespace(num_labels=1)
    )
    register_api_routers(app.state.args, app, (task,), model)
    return sorted({route.path for route in app.routes})


if __name__ == "__main__":
    from vllm import tasks

    found = {task: routes(task) for task in (*tasks.GENERATION_TASKS, *tasks.POOLING_TASKS, *tasks.FRONTEND_TASKS)}
    print(f"\n{json.dumps(found)}")
