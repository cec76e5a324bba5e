"""Which routes of the engine exist for whom: an allow-list over exact, percent-decoded paths. Everything else is 404."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum


class Kind(Enum):
    """What the guard does with a request."""

    INFERENCE = "inference"  # the body's `model` is mapped
    READ = "read"  # passed to the engine as it is
    MODELS = "models"  # the engine's list, rewritten to the base and the aliases
    METRICS = "metrics"  # the engine's metrics with aliases for engine adapters' names, and the guard's own
    AGENT = "agent"  # passed to the engine, for the pod's own agent only
    READY = "ready"  # answered here: the pod's readiness
    GUARD_METRICS = "guard-metrics"  # answered here: the guard's own metrics
    ENGINE = "engine"  # answered here, agent only: hanging GET of this process's state
    ROUTING = "routing"  # answered here, agent only: replaces the map of aliases
    KEYS = "keys"  # answered here, agent only: replaces the API keys
    WRONG_METHOD = "wrong-method"  # a public path with a method that it does not have
    UNKNOWN = "unknown"  # 404, as if the path did not exist


AGENT_ONLY = frozenset({Kind.AGENT, Kind.ENGINE, Kind.ROUTING, Kind.KEYS})

SCRAPED = frozenset({Kind.METRICS, Kind.GUARD_METRICS})

MODEL = ("model",)


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `stream_model` is where an event of its stream names the model; a plain answer names it at the top."""

    kind: Kind
    methods: tuple[str, ...] = ()
    stream_model: tuple[str, ...] = MODEL
    delta_events: bool = False  # content arrives in events called *.delta or *_delta; what comes before them is no first token
    background: bool = False  # the body can ask for an answer that outlives the request, where nothing would count it
    messages_api: bool = False  # errors have the shape of the messages API
    stream_usage: bool = False  # a stream reports its tokens only if the body asks for it
    bytes_usage: bool = False  # an answer in bytes reports its tokens in a header, which the body can ask to be left out
    generates: tuple[str, ...] = ()  # tokens are made one after the other, and the first of these fields that is there bounds how many
    unsalted: str = (
        ""  # the engine takes no `cache_salt` here, so the route is not for tenants that must not see each other: what they can do instead
    )
    keyless: bool = False  # answered without an API key where keys are required
    form: bool = False  # the body is a multipart form, and its field `model` is mapped


_UNKNOWN = Route(Kind.UNKNOWN)
_INFERENCE = Route(Kind.INFERENCE, ("POST",))
_GENERATION = Route(Kind.INFERENCE, ("POST",), stream_usage=True, generates=("max_tokens",))
_CHAT = replace(_GENERATION, generates=("max_completion_tokens", "max_tokens"))
_RESPONSES = Route(
    Kind.INFERENCE, ("POST",), stream_model=("response", "model"), delta_events=True, background=True, generates=("max_output_tokens",)
)
_MESSAGES = Route(Kind.INFERENCE, ("POST",), stream_model=("message", "model"), delta_events=True, messages_api=True, generates=("max_tokens",))
_EMBEDDING = Route(Kind.INFERENCE, ("POST",), bytes_usage=True)
_AUDIO = Route(Kind.INFERENCE, ("POST",), form=True, stream_usage=True, unsalted="Serve speech by a deployment without apiKeysSecret")
_READ = Route(Kind.READ, ("GET",))
_BROWSED = frozenset({Kind.INFERENCE, Kind.MODELS})  # elsewhere the engine may answer OPTIONS as a GET: its raw metrics, for one
_PREFLIGHT = Route(Kind.READ, ("OPTIONS",), keyless=True)  # a browser sends it without credentials

ALLOWED: dict[str, Route] = {
    # generate models
    "/v1/chat/completions": _CHAT,
    "/v1/chat/completions/batch": replace(_CHAT, stream_usage=False),
    "/v1/completions": _GENERATION,
    "/v1/responses": _RESPONSES,
    "/v1/messages": _MESSAGES,
    "/v1/messages/count_tokens": Route(Kind.INFERENCE, ("POST",), messages_api=True),
    "/generative_scoring": _INFERENCE,
    "/v1/systemone": _INFERENCE,
    # pooling models
    "/v1/embeddings": _EMBEDDING,
    "/v2/embed": Route(Kind.INFERENCE, ("POST",), unsalted="Use /v1/embeddings"),
    "/pooling": _EMBEDDING,
    "/score": _INFERENCE,
    "/v1/score": _INFERENCE,
    "/rerank": _INFERENCE,
    "/v1/rerank": _INFERENCE,
    "/v2/rerank": _INFERENCE,
    "/classify": _INFERENCE,
    # audio models
    "/v1/audio/transcriptions": _AUDIO,
    "/v1/audio/translations": _AUDIO,
    # all
    "/tokenize": _INFERENCE,
    "/detokenize": _INFERENCE,
    # read only
    "/v1/models": Route(Kind.MODELS, ("GET",)),
    "/metrics": Route(Kind.METRICS, ("GET", "HEAD")),
    "/health": Route(Kind.READ, ("GET",), keyless=True),
    "/ping": Route(Kind.READ, ("GET", "POST"), keyless=True),
    "/version": _READ,
    "/load": _READ,
    # the agent's
    "/v1/load_lora_adapter": Route(Kind.AGENT, ("POST",)),
    "/v1/unload_lora_adapter": Route(Kind.AGENT, ("POST",)),
    # the guard's own
    "/graftwork/ready": Route(Kind.READY, ("GET",)),
    "/graftwork/metrics": Route(Kind.GUARD_METRICS, ("GET",)),
    "/graftwork/engine": Route(Kind.ENGINE, ("GET",)),
    "/graftwork/routing": Route(Kind.ROUTING, ("PUT",)),
    "/graftwork/keys": Route(Kind.KEYS, ("PUT",)),
}

# Known routes of vLLM 0.32 that nobody reaches, as the engine logs them at start. What is neither here nor above is new: see `unclassified`.
BLOCKED: frozenset[str] = frozenset(
    {
        # WebSocket or a dialect of its own: the model is not in a body that is read here, so it cannot be mapped
        "/v1/realtime",
        "/cohere/v2/chat",
        # state of one pod, which another pod of the Service does not have
        "/v1/responses/{response_id}",
        "/v1/responses/{response_id}/cancel",
        # adapters by other names; a body whose `model` is ignored
        "/adapters",
        "/adapters/{adapter_name}",
        "/invocations",
        # inner workings
        "/kv_event_sources",
        "/openapi.json",
        "/docs",
        "/docs/oauth2-redirect",
        "/redoc",
        "/static",
        "/tokenizer_info",
        "/scale_elastic_ep",
        "/is_scaling_elastic_ep",
        "/v1/chat/completions/render",
        "/v1/completions/render",
        "/v1/messages/render",
        "/v1/responses/render",
        "/v1/chat/completions/derender",
        "/v1/completions/derender",
        "/inference/v1/generate",
        "/inference/v1/abort_requests",
        "/abort_requests",
        "/start_profile",
        "/stop_profile",
        "/fault_tolerance/apply",
        "/fault_tolerance/status",
        "/reset_prefix_cache",
        "/reset_mm_cache",
        "/reset_encoder_cache",
        "/collective_rpc",
        "/server_info",
        "/sleep",
        "/wake_up",
        "/release_kv_cache_memory",
        "/is_sleeping",
        "/pause",
        "/resume",
        "/is_paused",
        "/init_weight_transfer_engine",
        "/shutdown_weight_transfer_engine",
        "/start_weight_update",
        "/start_draft_weight_update",
        "/update_weights",
        "/finish_weight_update",
        "/update_weight_version",
        "/weight_info",
        "/weight_checker",
        "/get_world_size",
    }
)


def classify(method: str, path: str) -> Route:
    """Return the route of a request; `path` is the percent-decoded one, which is what the engine's router matches.

    Nothing is normalised: the engine's router does not fold case or slashes either, and where it is laxer than an exact comparison (a trailing
    slash is redirected, a trailing newline matches), being stricter only costs a 404.
    """
    route = ALLOWED.get(path, _UNKNOWN)
    if route.kind is Kind.UNKNOWN or method in route.methods:
        return route
    if route.kind in AGENT_ONLY:
        return _UNKNOWN
    if method == "OPTIONS" and route.kind in _BROWSED:  # a browser's preflight: the engine's CORS layer answers, or its router says 405
        return _PREFLIGHT
    return Route(Kind.WRONG_METHOD, route.methods)


def unclassified(paths: Iterable[str]) -> list[str]:
    """Return the route templates (as the engine logs or documents them) that are neither allowed nor known to be blocked, in order."""
    return sorted({path for path in paths if path not in ALLOWED and path not in BLOCKED})
