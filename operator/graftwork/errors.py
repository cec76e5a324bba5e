"""The errors that cross module borders. Each message names what was touched, the value, the rule and, where there is one, the remedy."""

# ruff: noqa: N818 - named for the answer of the API server that each of them stands for

from __future__ import annotations


class GraftworkError(Exception):
    """Base of every error that this program raises on purpose."""


class ConfigError(GraftworkError):
    """The operator's own configuration cannot be used."""


class LeaseLost(GraftworkError):
    """Another process leads, or the Lease could not be renewed before it expired; nothing may be written any more."""


class ApiError(GraftworkError):
    """The API server refused a request, or did not answer it."""


class NotFound(ApiError):
    """No such object, or no such kind (its CRD is not installed)."""


class AlreadyExists(ApiError):
    """`create` met an object of that name."""


class Conflict(ApiError):
    """The object changed since it was read; read again and decide again."""


class Invalid(ApiError):
    """The object breaks a rule of its schema, of CEL or of an admission policy; sending it again does not help."""


class Forbidden(ApiError):
    """RBAC, a quota or an admission policy forbids it."""


class Unavailable(ApiError):
    """No answer, a timeout, 429 or 5xx: try again later."""


class NameTaken(GraftworkError):
    """A child's name belongs to an object that is not the owner's child."""

    def __init__(self, kind: str, namespace: str, name: str, held_by: str) -> None:
        super().__init__(
            f"{kind} {namespace}/{name} exists and belongs to {held_by}; it is left as it is. "
            f"Rename one of the two, or delete the {kind} if nobody needs it."
        )
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.held_by = held_by
