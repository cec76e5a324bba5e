"""The operator's own Prometheus series. Names and labels are public: dashboards and alerts use them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

PASSES = Counter("graftwork_reconcile_passes", "Reconcile passes that ended, by kind and result (ok, conflict, error).", ["kind", "result"])
PASS_SECONDS = Histogram("graftwork_reconcile_seconds", "Length of a reconcile pass.", ["kind"], buckets=_SECONDS)
WAKE_SECONDS = Histogram("graftwork_wake_to_pass_seconds", "From a wake to the beginning of the pass that it caused.", ["kind"], buckets=_SECONDS)
RESOURCES = Gauge("graftwork_resources", "Resources that have a reconcile task.", ["kind"])
FAILING = Gauge("graftwork_failing_resources", "Resources whose last pass raised an error.", ["kind"])

ROLLOUTS = Counter("graftwork_rollouts", "Rollouts of LLMDeployments that ended, by result (Completed, RolledBack).", ["result"])
COLD_START_SECONDS = Histogram(
    "graftwork_cold_start_seconds",
    "What new serving pods took, by phase (scheduled, pulled, cached, loaded; ready: all in all).",
    ["phase"],
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600),
)
INSPECT_SECONDS = Histogram(
    "graftwork_inspect_seconds",
    "What looking a model's source up took, from its Job to its end, by kind of source (hf, s3) and result (ModelResolved, or why not).",
    ["source", "result"],
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800),
)

API_REQUESTS = Counter("graftwork_api_requests", "Answers of the API server, by kind, verb and HTTP code (0: none).", ["kind", "verb", "code"])
API_WRITES = Counter("graftwork_api_writes", "Write requests sent to the API server.", ["kind", "verb"])
EVENTS_DROPPED = Counter("graftwork_events_dropped", "Events that were not written (queue full, or refused by the API server).")

WATCH_EVENTS = Counter("graftwork_watch_events", "Events received from watch streams.", ["kind"])
WATCH_RESTARTS = Counter("graftwork_watch_restarts", "Times that a kind had to be listed again because its watch could not go on.", ["kind"])
MIRROR_OBJECTS = Gauge("graftwork_mirror_objects", "Objects in the mirror.", ["kind"])
MIRROR_REPAIRS = Counter("graftwork_mirror_repairs", "Changes that a full listing found and no watch had told.", ["kind"])
PEERS = Gauge("graftwork_peers", "Agents and trainers that are watched.", ["role", "reachable"])

LEASE_HELD = Gauge("graftwork_lease_held", "1 while this process holds the Lease.")
LOOP_LAG = Gauge("graftwork_event_loop_lag_seconds", "How late the event loop's last tick was.")
