"""What all models of the API share: naming, field documentation, metadata, and reading an object that the API server sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticUndefined

from graftwork.api.cel import Rule

VALIDATIONS = "x-kubernetes-validations"
RESTARTS = "x-restarts"
UNIT = "x-unit"


class InvalidObjectError(ValueError):
    """An object breaks a rule that the CRD's schema cannot know; the text names each field, its value and the rule."""


class Model(BaseModel):
    """A frozen part of an object: camelCase in YAML, snake_case in Python; fields of a newer CRD are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", protected_namespaces=())

    RULES: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the model's CEL rules, which only the API server evaluates."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        if cls.RULES:
            schema[VALIDATIONS] = [rule.as_schema() for rule in cls.RULES]
        return schema


def field(
    default: Any = PydanticUndefined,
    *,
    doc: str,
    restarts: bool | None = None,
    unit: str = "",
    key: str = "",
    rules: tuple[Rule, ...] = (),
    **bounds: Any,
) -> Any:
    """Declare a field with its description, unit, CEL rules, and whether changing it restarts serving pods (None: nothing runs from it).

    `key` is the field that tells the items of a list apart (a second item with the same one is refused, and server-side apply merges by it).

    `bounds` are pydantic's (`ge`, `max_length`, `pattern`, `default_factory`, ...). Every string, list and map of a spec needs one: the API
    server refuses a CRD whose rules could become expensive.
    """
    extra: dict[str, Any] = {}
    if restarts is not None:
        extra[RESTARTS] = restarts
    if unit:
        extra[UNIT] = unit
    if key:
        extra["x-kubernetes-list-type"] = "map"
        extra["x-kubernetes-list-map-keys"] = [key]
    if rules:
        extra[VALIDATIONS] = [rule.as_schema() for rule in rules]
    if default is not PydanticUndefined:
        bounds["default"] = default
    return Field(description=doc, json_schema_extra=extra or None, **bounds)


class Metadata(Model):
    """The part of ObjectMeta that Graftwork reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()

    @property
    def deleting(self) -> bool:
        """Whether the object has been deleted and waits for its finalizers."""
        return self.deletion_timestamp is not None


class Resource(Model):
    """An object of one of the kinds: metadata and a parsed spec; the status stays a dict, because it is compared with what is to be written."""

    KIND: ClassVar[str] = ""

    metadata: Metadata
    status: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> Self:
        """Parse what the API server sent; raise InvalidObjectError that names every field that breaks a rule."""
        try:
            return cls.model_validate({key: obj[key] for key in ("metadata", "spec", "status") if obj.get(key) is not None})
        except ValidationError as error:
            raise InvalidObjectError("; ".join(_explain(item) for item in error.errors())) from error

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.metadata.namespace, self.metadata.name


def _explain(item: Mapping[str, Any]) -> str:
    """Return `spec.engine.args: <rule> (got <value>)` for one of pydantic's errors."""
    where = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if item["type"] == "value_error" else f"{where}: {message} (got {str(item['input'])[:80]!r})"
