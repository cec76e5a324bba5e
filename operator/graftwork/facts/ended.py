"""How a container's process ended, in a reason and one sentence."""

from __future__ import annotations

import re

from graftwork import names
from graftwork.facts.pods import Container, Pod
from graftwork.facts.reported import DEFINITIVE_EXITS
from graftwork.facts.result import last_words
from graftwork.reasons import Reason

VLLM_USAGE_EXIT = 2
_NO_MEMORY = re.compile(
    r"OutOfMemoryError|out of memory|No available memory for the cache blocks|Free memory on device|not enough (GPU )?memory|MemoryError"
    r"|can(not|'t) allocate memory|std::bad_alloc",
    re.IGNORECASE,
)
"""How vLLM and what it is made of say that a GPU or the host has too little; the kernel's own end of a container is OOMKilled."""


def told(pod: Pod, container: Container, otherwise: Reason) -> tuple[Reason, str]:
    """Return reason and sentence of the container's latest end; `otherwise` is the reason of one that gives none.

    vLLM ends with 0 after a fatal error too, so that no end of it is a good one.
    """
    ended = container.ended
    assert ended is not None
    reason, words = last_words(ended.message, otherwise)
    if ended.reason == "OOMKilled":
        reason, words = Reason.OUT_OF_MEMORY, words or "it used more memory than its limit"
    elif container.name == names.CONTAINER_ENGINE and reason is Reason.ENGINE_CRASHED and _NO_MEMORY.search(words):
        reason = Reason.OUT_OF_MEMORY
    restarts = f", restarted {container.restarts} times" if container.restarts > 1 else ""
    text = f"container {container.name} of pod {pod.name} ended with exit code {ended.exit_code}{restarts}: {words or ended.reason or 'no message'}"
    return reason, text


def is_definitive(container: Container) -> bool:
    """Return whether the latest end says that another attempt ends the same way: wrong data, wrong configuration, flags that vLLM does not take."""
    if container.ended is None:
        return False
    usage = container.name == names.CONTAINER_ENGINE and container.ended.exit_code == VLLM_USAGE_EXIT
    return container.ended.exit_code in DEFINITIVE_EXITS or usage
