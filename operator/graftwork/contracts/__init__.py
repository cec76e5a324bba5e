"""What other programs send, checked against the schemas of docs/design/schemas before it is believed.

The schema files here are copies, because the installed operator has no docs folder; a test compares them with the originals.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

AGENT_STATUS = "agent-status"
PROGRESS = "progress"
RESULT = "result"
IMPORT_RESULT = "import-result"
SWEEP_RESULT = "sweep-result"
INSPECT_RESULT = "inspect-result"
FILL_RESULT = "fill-result"
FILL_PROGRESS = "fill-progress"


class ContractError(ValueError):
    """A document is not what its contract says; the message names the place and the rule."""


def parse(schema: str, data: bytes) -> dict[str, Any]:
    """Return the JSON document in `data` if it follows the schema; ContractError if not."""
    try:
        document = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{schema}: not JSON: {error}") from error
    problem = best_match(_validator(schema).iter_errors(document))
    if problem is not None:
        place = "/".join(str(part) for part in problem.absolute_path) or "the document"
        raise ContractError(f"{schema}: {place}: {problem.message[:300]}")
    assert isinstance(document, dict)
    return document


@cache
def _validator(schema: str) -> Draft202012Validator:
    text = files(__package__).joinpath(f"{schema}.schema.json").read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
