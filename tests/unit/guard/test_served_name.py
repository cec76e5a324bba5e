"""While a rollout changes the served name, the pods of both templates read one document; each goes by the name that its own engine knows."""

from __future__ import annotations

from graftwork_guard.routing import Target, decide, parse

DOCUMENT = {
    "apiVersion": "graftwork.dev/routing/v1",
    "base": "new-name",
    "aliases": {"medical": "medical--3f2a9c41d0e7"},
    "unavailable": {},
    "ready": True,
}


def test_a_pod_keeps_the_name_that_its_engine_was_started_with() -> None:
    routing = parse(DOCUMENT, served_name="old-name")
    assert decide(routing, "old-name") == Target("old-name")
    assert decide(routing, None) == Target("old-name")


def test_without_a_name_of_its_own_the_documents_counts() -> None:
    assert decide(parse(DOCUMENT), "new-name") == Target("new-name")
