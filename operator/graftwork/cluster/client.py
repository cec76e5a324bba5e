"""The API server behind `ClusterApi`: requests with dicts, typed errors, and what was written is in the mirror.

They go through the transport below `kubernetes.aio.dynamic`, which formats a traceback for each answer that is no success: every child of every new
resource is looked for first and not found, and that took an eighth of the operator's time with 300 of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException

from graftwork import errors, names
from graftwork.cluster import metrics
from graftwork.cluster.kinds import KINDS, Kind
from graftwork.cluster.mirror import Mirror
from graftwork.cluster.protocol import Object, Objects

REQUEST_SECONDS = 20.0
PAGE = 100
"""Objects of a listing at once: many as they are sent take ten times the memory that they take in the mirror."""
RETRY_AFTER_SECONDS = 0.1

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"


class Cluster:
    """One process's way to the API server; see `ClusterApi` for what each method promises."""

    def __init__(self, client: ApiClient, mirror: Mirror | None = None) -> None:
        self.may_write: Callable[[], bool] = lambda: True  # asked before each write of anything but a Lease
        self._client = client
        self._mirror = mirror

    @property
    def configuration(self) -> Configuration:
        """Return address and credentials, for the watch streams."""
        return self._client.configuration

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Read one object; None if there is none."""
        try:
            return await self._send("get", KINDS[kind], namespace, name, retry=True)
        except errors.NotFound:
            return None

    async def serves(self, kind: str) -> bool:
        """Ask whether the API server has the kind at all."""
        described = KINDS[kind]
        try:
            found = await self._send("discover", described, None, None, path=described.discovery_path, retry=True)
        except errors.NotFound:
            return False
        return any(item.get("name") == described.plural for item in found.get("resources") or [])

    async def list(self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None) -> Objects:
        """Read all objects of a namespace (None: of all) whose labels have these values."""
        items, _ = await self.listing(kind, namespace, ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())))
        return items

    async def listing(self, kind: str, namespace: str | None, selector: str) -> tuple[Objects, str]:
        """Read all objects that the selector matches, in pages, and the resourceVersion of the listing; NotFound if the kind is not installed."""
        described = KINDS[kind]
        items: Objects = []
        token = ""
        while True:
            query = [("limit", PAGE)] + ([("labelSelector", selector)] if selector else []) + ([("continue", token)] if token else [])
            page = await self._send("list", described, namespace, None, query=query, retry=True)
            whole = [{"apiVersion": described.api_version, "kind": kind, **item} for item in page.get("items") or []]
            items += [self._mirror.slim(item) for item in whole] if self._mirror and described.watched else whole
            metadata = page.get("metadata") or {}
            token = metadata.get("continue") or ""
            if not token:
                return items, str(metadata.get("resourceVersion", ""))

    async def apply(self, obj: Object) -> Object:
        """Server-side apply as manager `graftwork`, with force."""
        metadata = obj["metadata"]
        query = [("fieldManager", names.FIELD_MANAGER), ("force", "true")]
        return await self._write("apply", obj["kind"], metadata["namespace"], metadata["name"], obj, content_type=_APPLY, query=query, retry=True)

    async def try_apply(self, obj: Object) -> None:
        """Ask whether `apply` would be taken, and change nothing: Invalid or Forbidden if it would not."""
        metadata = obj["metadata"]
        query = [("fieldManager", names.FIELD_MANAGER), ("force", "true"), ("dryRun", "All")]
        await self._send("apply", KINDS[obj["kind"]], metadata["namespace"], metadata["name"], body=obj, content_type=_APPLY, query=query, retry=True)

    async def create(self, obj: Object) -> Object:
        """Create; AlreadyExists if the name is taken."""
        query = [("fieldManager", names.FIELD_MANAGER)]
        return await self._write("create", obj["kind"], obj["metadata"]["namespace"], None, obj, query=query)

    async def delete(self, kind: str, namespace: str, name: str, uid: str | None = None, propagation: str = "Background") -> None:
        """Delete, only if the object has that uid; one that is gone, or another one of that name, is no error."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        self._count_write(kind, "delete")
        known = self._known(kind, namespace, name)
        try:
            await self._send("delete", KINDS[kind], namespace, name, body=options, retry=True)
        except errors.NotFound:
            self._is_gone(known)
        except errors.Conflict:
            if not uid:
                raise

    async def patch_status(self, kind: str, namespace: str, name: str, status: Mapping[str, Any], resource_version: str) -> Object:
        """Replace the whole status; Conflict if the object is not of that resourceVersion any more."""
        operations = [  # "replace" of resourceVersion is the API server's optimistic lock: 409 when it is another one
            {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version},
            {"op": "add", "path": "/status", "value": dict(status)},
        ]
        return await self._write("patch_status", kind, namespace, name, operations, content_type=_JSON_PATCH, subresource="status")

    async def set_finalizers(self, kind: str, obj: Object, finalizers: Sequence[str]) -> Object:
        """Set exactly these finalizers; Conflict if the object changed since `obj` was read."""
        metadata = obj["metadata"]
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"], "finalizers": list(finalizers)}}
        return await self._write("patch", kind, metadata["namespace"], metadata["name"], patch, content_type=_MERGE)

    async def annotate_pod(self, namespace: str, name: str, annotations: Mapping[str, str | None]) -> Object:
        """Set (or, by None, remove) annotations of a pod and nothing else."""
        patch = {"metadata": {"annotations": dict(annotations)}}
        return await self._write("patch", "Pod", namespace, name, patch, content_type=_MERGE, retry=True)

    async def merge(self, kind: str, namespace: str, name: str, patch: Object, *, request_seconds: float = REQUEST_SECONDS) -> Object:
        """Merge-patch one object; Conflict if the patch names a resourceVersion that is not the object's any more."""
        return await self._write("patch", kind, namespace, name, patch, content_type=_MERGE, request_seconds=request_seconds)

    async def _write(self, verb: str, kind: str, namespace: str, name: str | None, body: Any, **options: Any) -> Object:
        self._count_write(kind, verb)
        known = self._known(kind, namespace, name)
        try:
            written = await self._send(verb, KINDS[kind], namespace, name, body=body, **options)
        except errors.NotFound:
            self._is_gone(known)
            raise
        if self._mirror:
            self._mirror.put(written, written=True)
        return written

    def _known(self, kind: str, namespace: str, name: str | None) -> Object | None:
        return self._mirror.get(kind, namespace, name) if self._mirror and name else None

    def _is_gone(self, known: Object | None) -> None:
        """Forget what was known when the API server was asked. When its answer comes, another object may have taken the name."""
        if self._mirror and known:
            metadata = known["metadata"]
            self._mirror.remove(known["kind"], metadata["namespace"], metadata["name"], metadata["uid"])

    def _count_write(self, kind: str, verb: str) -> None:
        if kind != "Lease" and not self.may_write():  # a process that was held up learns of it here, before its first late write
            raise errors.LeaseLost(f"{verb} {kind} was not sent: the Lease has expired")
        metrics.API_WRITES.labels(kind, verb).inc()

    async def _send(self, verb: str, kind: Kind, namespace: str | None, name: str | None, *, retry: bool = False, **options: Any) -> Object:
        what = f"{verb} {kind.name} {namespace or '*'}/{name or '*'}"
        try:
            return await self._request(verb, kind, namespace, name, **options)
        except aiohttp.ClientConnectionError as error:  # mostly a kept-alive connection that the server closed
            metrics.API_REQUESTS.labels(kind.name, verb, "0").inc()
            if not retry:
                raise errors.Unavailable(f"{what}: the API server does not answer ({error})") from error
        await asyncio.sleep(RETRY_AFTER_SECONDS)
        try:
            return await self._request(verb, kind, namespace, name, **options)
        except aiohttp.ClientConnectionError as error:
            raise errors.Unavailable(f"{what}: the API server does not answer ({error})") from error

    async def _request(
        self,
        verb: str,
        kind: Kind,
        namespace: str | None,
        name: str | None,
        *,
        body: Any = None,
        content_type: str | None = None,
        subresource: str = "",
        path: str = "",
        query: Sequence[tuple[str, Any]] = (),
        request_seconds: float = REQUEST_SECONDS,
    ) -> Object:
        what = f"{verb} {kind.name} {namespace or '*'}/{name or '*'}"
        try:
            request = await self._client.param_serialize(
                _METHODS[verb],
                path or kind.path(namespace, name, subresource),
                query_params=list(query),
                header_params={"Accept": "application/json", "Content-Type": content_type or "application/json"},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(*request, _request_timeout=aiohttp.ClientTimeout(total=request_seconds, sock_connect=5))
            await response.read()
            if not 200 <= response.status <= 299:
                self._client.response_deserialize(response, {})  # raises what the status stands for
            answer: Object = json.loads(response.data)
        except ApiException as error:
            metrics.API_REQUESTS.labels(kind.name, verb, str(error.status)).inc()
            raise _typed(what, verb, error) from error
        except (TimeoutError, aiohttp.ClientPayloadError, ValueError) as error:
            metrics.API_REQUESTS.labels(kind.name, verb, "0").inc()
            raise errors.Unavailable(f"{what}: no usable answer of the API server in {request_seconds:g} s ({error!r})") from error
        metrics.API_REQUESTS.labels(kind.name, verb, "200").inc()
        return answer


_METHODS = {
    "get": "GET",
    "list": "GET",
    "discover": "GET",
    "apply": "PATCH",
    "create": "POST",
    "delete": "DELETE",
    "patch": "PATCH",
    "patch_status": "PATCH",
}


_ERRORS: dict[int, type[errors.ApiError]] = {
    400: errors.Invalid,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.Invalid,
    415: errors.Invalid,
    422: errors.Invalid,
}


def _typed(what: str, verb: str, error: ApiException) -> errors.ApiError:
    message, reason = _message(error)
    if verb == "create" and reason == "AlreadyExists":
        return errors.AlreadyExists(f"{what}: {message}")
    if error.status == 401:
        message += ". The API server does not accept the operator's credentials; they are read again"
    return _ERRORS.get(int(error.status or 0), errors.Unavailable)(f"{what}: {message}")


def _message(error: ApiException) -> tuple[str, str]:
    try:
        status = json.loads(error.body or "")
        return str(status.get("message") or error.reason), str(status.get("reason") or "")
    except (ValueError, AttributeError):
        return f"HTTP {error.status} {error.reason}", ""
