"""Watch streams by kopf: what they tell goes into the mirror, whose listeners wake the resources.

Only `on.event` handlers are registered, so kopf puts no finalizer and no annotation on anything; it posts no Events, scans for no new
kinds and namespaces, and is its own instance (the Lease decides who acts). A stream that fails for good ends `run`, and with it the
process. kopf reconnects silent streams by itself; when it had to list a kind again it tells so by events without a type, and then the
kind is audited, because deletions in between are told by nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from graftwork.cluster import metrics
from graftwork.cluster.connect import bearer_token
from graftwork.cluster.kinds import WATCHED, Kind
from graftwork.cluster.mirror import Mirror

logger = logging.getLogger(__name__)

_WATCHER_TASK = "watcher for "


class Watches:
    """All watch streams of this process."""

    def __init__(self, mirror: Mirror, relisted: Callable[[str], None], configuration: Configuration, namespaces: tuple[str, ...]) -> None:
        """`relisted` is called with a kind for each object that kopf tells from a listing and not from a stream."""
        self._mirror = mirror
        self._relisted = relisted
        self._configuration = configuration
        self._namespaces = namespaces

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop` is set; raises when a stream cannot go on. Ends every task that was started after it."""
        await kopf.operator(
            registry=self._registry(),
            settings=self._settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=stop,
        )

    def missing(self) -> int:
        """Return how many streams that ought to run do not."""
        running = sum(task.get_name().startswith(_WATCHER_TASK) for task in asyncio.all_tasks() if not task.done())
        return max(len(WATCHED) * max(len(self._namespaces), 1) - running, 0)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, id="login")(self._login)
        for kind in WATCHED:
            kopf.on.event(group=kind.group, version=kind.version, plural=kind.plural, registry=registry, id=kind.name, param=kind)(self._seen)
        return registry

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.process.ultimate_exiting_timeout = None
        settings.queueing.idle_timeout = 1.0
        settings.networking.request_timeout = 30
        settings.networking.connect_timeout = 5
        settings.watching.chunk_size = 500
        for kind in WATCHED:
            if kind.label_selector:
                settings.watching.label_selectors[_selects(kind)] = kind.label_selector
        return settings

    async def _seen(self, event: dict[str, Any], param: Kind, **_: Any) -> None:
        obj = event["object"]
        metrics.WATCH_EVENTS.labels(param.name).inc()
        if event["type"] is None:
            self._relisted(param.name)
        if event["type"] == "DELETED":
            metadata = obj["metadata"]
            self._mirror.remove(param.name, metadata["namespace"], metadata["name"], metadata["uid"], metadata["resourceVersion"])
        else:
            self._mirror.put({"apiVersion": param.api_version, "kind": param.name, **obj})

    async def _login(self, **_: Any) -> kopf.ConnectionInfo:
        configuration = self._configuration
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert or None,
            insecure=not configuration.verify_ssl,
            token=await bearer_token(configuration),
            certificate_path=configuration.cert_file or None,
            private_key_path=configuration.key_file or None,
        )


def _selects(kind: Kind) -> Callable[[Any], bool]:
    return lambda resource: bool(resource.group == kind.group and resource.plural == kind.plural)
