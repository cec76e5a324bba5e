"""The CEL rules of the CRDs, as data. The API server evaluates them at apply; tests/control_plane applies what each must refuse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """One CEL rule. `says` is a CEL expression for the message where the message should quote the value; `message` is its fallback."""

    rule: str
    message: str
    says: str = ""

    def as_schema(self) -> dict[str, Any]:
        """Return the entry of x-kubernetes-validations."""
        schema = {"rule": self.rule, "message": self.message}
        if self.says:
            schema["messageExpression"] = self.says
        return schema


def quoting(rule: str, message: str, value: str = "self") -> Rule:
    """Return a rule whose message starts with the refused value: the API server prints only the type of what a CEL rule refused.

    `value` is a CEL expression for a string with a bound; string(x) of a string has none, and the API server then refuses the CRD for its cost.
    """
    return Rule(rule, message, f"""'"' + {value} + '" is refused: {message}'""")


def source(schemes: tuple[str, ...], remedy: str) -> Rule:
    """Return the rule for a source URI: one of `schemes`, a bucket or object name, and a path without empty or `..` parts."""
    kinds = "|".join(schemes)
    shapes = " or ".join(
        {"s3": "s3://<bucket>/<key>", "pvc": "pvc://<claim>/<path>", "configMap": "configMap://<name>/<key>"}[kind] for kind in schemes
    )
    return quoting(
        rf"self.matches('^({kinds})://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^/\\s]+)+/?$') && !self.matches('/[.][.]?(/|$)')",
        f"a source is {shapes}, without empty, . or .. parts; {remedy}",
    )


MODEL_SOURCE = quoting(
    " || ".join(
        (
            r"self.matches('^(s3|pvc)://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^/\\s]+)+/?$') && !self.matches('/[.][.]?(/|$)')",
            "self.matches('^hf://[A-Za-z0-9][-A-Za-z0-9_.]*/[A-Za-z0-9][-A-Za-z0-9_.]*$')",
        )
    ),
    "a source is hf://<owner>/<repository>, s3://<bucket>/<key> or pvc://<claim>/<path>, without empty, . or .. parts; a branch, tag or commit of a "
    "hub goes into model.revision, and a model from elsewhere is copied into a bucket or a claim first",
)

REVISION = quoting(
    "!self.contains('..') && !self.contains('//')", "a revision is a branch, a tag or a commit of the hub; write its name without .. and //"
)

ADAPTER_SOURCE = quoting(
    " || ".join(
        f"self.matches('{pattern}')"
        for pattern in (
            "^store://[a-z0-9][-a-z0-9]*/[a-z0-9][-a-z0-9]*/[0-9a-f]{12}$",
            r"^s3://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^/$\\s]+)+/?$",
            r"^hf://[A-Za-z0-9][-A-Za-z0-9_.]*/[A-Za-z0-9][-A-Za-z0-9_.]*(/[^/@$\\s]+)*(@[^@$\\s]+)?$",
            r"^https://[A-Za-z0-9][-A-Za-z0-9.]*(:[0-9]+)?/([^?#@$\\s]*/)?([^/?#@$\\s]+[.](tar[.]gz|tgz|tar|zip))?$",
        )
    ),
    "a source is store://<namespace>/<alias>/<first 12 hex digits of the digest>, s3://<bucket>/<prefix>, "
    "hf://<owner>/<repository>[/<folder>][@<revision>], https://<host>/<folder>/ (with the slash at its end) or "
    "https://<host>/<archive>.tar.gz, .tgz, .tar or .zip, without credentials or a query in it, and without $",
)
"""Where an adapter may come from: the store, or a place that it is imported from."""

NO_DOTS = quoting("!self.matches('/[.][.]?(/|@|$)')", "a source has no . or .. parts; write the path out")


def int_or_auto(what: str, low: int, high: int) -> Rule:
    """Return the rule for a field that is a whole number within bounds or the word auto."""
    return quoting(
        f"type(self) == string ? self == 'auto' : (int(self) >= {low} && int(self) <= {high})",
        f"{what} is a whole number from {low} to {high}, or auto",
        "string(self)",
    )


def one_of_or_auto(what: str, values: Iterable[int]) -> Rule:
    """Return the rule for a field that is one of a few numbers or the word auto."""
    listed = ", ".join(str(value) for value in values)
    return quoting(f"type(self) == string ? self == 'auto' : int(self) in [{listed}]", f"{what} is one of {listed}, or auto", "string(self)")


ALIAS = quoting(
    "!self.contains('--')",
    "an alias never contains -- (it would look like an engine name, <alias>--<digest>); use single dashes",
)

OWN_KEYS = Rule(
    "self.all(k, !k.startsWith('graftwork.dev/') && k != 'app.kubernetes.io/managed-by')",
    "keys graftwork.dev/* and app.kubernetes.io/managed-by belong to Graftwork; use a prefix of your own",
)


def dns_label_name(kind: str, why: str, pattern: str = "^[a-z]([-a-z0-9]*[a-z0-9])?$") -> Rule:
    """Return the rule for an object's own name, which becomes the name of children with stricter rules than the kind itself."""
    return quoting(
        f"size(self.metadata.name) <= 52 && self.metadata.name.matches('{pattern}')",
        f"the name of {kind} has at most 52 characters of a-z, 0-9 and -, and starts with a letter, because {why}; choose another metadata.name",
        "self.metadata.name",
    )


def immutable(fields: Iterable[str], why: str) -> tuple[Rule, ...]:
    """Return one rule per field for the parent of the fields: neither changed, nor removed, nor added later.

    A rule on the field itself would not be evaluated when the field is removed, and again not when it is added.
    """
    return tuple(
        Rule(
            f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})",
            f"{name} is immutable: {why}",
        )
        for name in fields
    )
