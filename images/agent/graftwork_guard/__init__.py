"""The guard: pure ASGI middleware inside vLLM's process (`--middleware graftwork_guard.Guard`), standard library only.

It answers for what the outside may reach, maps public model names to the engine's, and counts. docs/design/guard.md says how.
"""

from graftwork_guard.middleware import Guard

__all__ = ["Guard"]
