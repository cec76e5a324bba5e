"""The agent's own series."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters and histograms of one agent process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.loads = Counter("graftwork_agent_loads", "Adapter loads that the engine lists afterwards", registry=self._registry)
        self.failures = Counter(
            "graftwork_agent_failures", "Adapters refused or failed, by reason; each attempt counts", ["reason"], registry=self._registry
        )
        self.unloads = Counter("graftwork_agent_unloads", "Adapters taken out of the engine", registry=self._registry)
        self.engines = Counter("graftwork_agent_engine_processes", "Engine processes seen", registry=self._registry)
        self.loaded = Gauge("graftwork_agent_adapters_loaded", "Adapters that the engine lists now", registry=self._registry)
        self.seen_to_sent = Histogram(
            "graftwork_agent_seen_to_load_seconds",
            "From seeing the hash of the adapters.json that lists an adapter to sending its load, first attempts only",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.load_seconds = Histogram("graftwork_agent_load_seconds", "How long the engine took to load", buckets=_SECONDS, registry=self._registry)

    def render(self) -> bytes:
        """Return the Prometheus text."""
        return generate_latest(self._registry)
