"""Vectors as bytes (`encoding_format`): the engine tells its usage and its own name in a header, or nothing at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.guard.fakes import BASE, ENGINE, VECTORS, World, metadata
from tests.unit.guard.keyed import A, KeyedWorld, entry

ROUTES = ["/v1/embeddings", "/pooling"]
LABELS = 'alias="medical",digest="3f2a9c41d0e7",version=""'


@pytest.mark.parametrize("path", ROUTES)
async def test_the_header_names_the_alias_and_its_tokens_are_counted(world: World, path: str) -> None:
    answer = await world.post({"model": "medical", "input": "x", "encoding_format": "bytes"}, path)
    assert answer.body == VECTORS
    assert answer.headers[b"metadata"] == metadata("medical")[0][1]
    assert await world.metric(f'graftwork_tokens_total{{{LABELS},kind="prompt"}}') == 5
    base = await world.post({"input": "x", "encoding_format": "bytes"}, path)
    assert json.loads(base.headers[b"metadata"])["model"] == BASE


@pytest.mark.parametrize("path", ROUTES)
async def test_bytes_only_are_counted_too_and_come_without_the_header(world: World, path: str) -> None:
    answer = await world.post({"model": "medical", "input": "x", "encoding_format": "bytes_only"}, path)
    assert (answer.body, b"metadata" in answer.headers) == (VECTORS, False)
    assert world.engine.seen[-1].json == {"model": ENGINE, "input": "x", "encoding_format": "bytes"}
    assert await world.metric(f'graftwork_tokens_total{{{LABELS},kind="prompt"}}') == 5


@pytest.mark.parametrize("encoding", ["bytes", "bytes_only"])
async def test_a_limit_of_tokens_holds_for_bytes(tmp_path: Path, encoding: str) -> None:
    world = KeyedWorld(tmp_path)
    await world.route()
    await world.keys(entry("team-a", A, tokensPerMinute=4))
    assert (await world.ask(A, {"encoding_format": encoding}, "/v1/embeddings")).status == 200
    assert (await world.ask(A, {"encoding_format": encoding}, "/v1/embeddings")).status == 429
    assert await world.metric('graftwork_key_tokens_total{key="team-a",kind="prompt"}') == 5
