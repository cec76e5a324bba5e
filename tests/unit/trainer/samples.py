"""Samples that several tests of the trainer use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

ROOT = Path(__file__).parents[3]

RUN: dict[str, Any] = {
    "apiVersion": "graftwork.dev/run/v1",
    "job": {"namespace": "ml", "name": "tickets", "uid": "4b7e", "run": 1},
    "base": {"path": "/models/base", "source": "s3://models/tiny"},
    "dataset": {"path": "/data/dataset", "source": "s3://data/tickets.jsonl", "format": "auto", "validation": 0.1},
    "method": "qlora",
    "lora": {"rank": 16, "alpha": 32, "dropout": 0.05, "targetModules": "all-linear"},
    "training": {
        "epochs": 3,
        "learningRate": 0.0002,
        "batchSize": 4,
        "maxSeqLength": 2048,
        "packing": False,
        "warmupRatio": 0.03,
        "scheduler": "cosine",
        "seed": 42,
        "maxSteps": None,
    },
    "evaluation": {"gate": {"minImprovement": 0.0}},
    "publish": {"alias": "medical"},
    "scratch": "/scratch",
    "progressPort": 9902,
}


def schema(name: str) -> jsonschema.Draft202012Validator:
    """Return the validator of docs/design/schemas/<name>.schema.json."""
    document = json.loads((ROOT / f"docs/design/schemas/{name}.schema.json").read_bytes())
    return jsonschema.Draft202012Validator(document)
