"""keys.yaml: what is taken, what is refused, and that no refusal shows a key."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from graftwork.api import LLMDeployment
from graftwork_agent.keys_file import API_VERSION, KeysFile, KeysFileError, parse
from hypothesis import given
from hypothesis import strategies as st

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/design/schemas/keys.schema.json").read_text())
KEY = "gw-6c1f0000000000"  # 17 characters
GOOD = f"team-a: {{key: {KEY}}}\n"


def test_the_contracts_example_becomes_the_guards_document() -> None:
    data = b"""
team-a: {key: gw-6c1f000000000000, models: [support, medical], limits: {requestsPerMinute: 600, tokensPerMinute: 200000, concurrent: 8}}
team-b: {key: 'gw-91b0000000000000'}            # every model, no limits
scraper: {key: gw-05d2000000000000, metrics: true}
"""
    entries = parse(data).entries
    jsonschema.validate({"apiVersion": API_VERSION, "instance": "ab", "keys": entries}, SCHEMA)
    assert entries == [
        {
            "name": "team-a",
            "sha256": hashlib.sha256(b"gw-6c1f000000000000").hexdigest(),
            "models": ["support", "medical"],
            "limits": {"requestsPerMinute": 600, "tokensPerMinute": 200000, "concurrent": 8},
        },
        {"name": "team-b", "sha256": hashlib.sha256(b"gw-91b0000000000000").hexdigest(), "models": [], "limits": {}},
        {"name": "scraper", "sha256": hashlib.sha256(b"gw-05d2000000000000").hexdigest(), "models": [], "limits": {}, "metrics": True},
    ]


def test_nobody_is_a_valid_list() -> None:
    assert parse(b"{}") == KeysFile([])


def test_an_empty_list_of_models_keeps_that_key_out_and_no_other() -> None:
    found = parse(f"team-a: {{key: {KEY}, models: []}}\n{KEY}-name: {{key: {KEY}2, models: []}}\nteam-b: {{key: {KEY}3}}".encode())
    assert [entry["name"] for entry in found.entries] == ["team-b"]
    first, second = found.left_out
    assert first.startswith("team-a.models is an empty list, so this key is let in nowhere; leave models out for every model")
    assert second.startswith("entry 2 (gw-6…).models is an empty list")
    assert KEY not in first + second
    with pytest.raises(KeysFileError, match="its key is that of team-a too"):
        parse(f"team-a: {{key: {KEY}, models: []}}\nteam-b: {{key: {KEY}}}".encode())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty; write a mapping"),
        ("- a", "is a list; it must be a mapping"),
        (KEY, "is text; it must be a mapping"),
        ("yes: {}", "entry 1: its name is a truth value (YAML reads yes, no, on and off as such)"),
        (f"{GOOD}12: {{}}", "entry 2: its name is the number 12; it must be text, so put it into quotes"),
        ("'-a': {}", "entry 1: its name ('-a') must be at most 63"),
        (f"'{KEY}!': {{}}", "entry 1: its name (a name of 18 characters) must be"),
        (f"team-a: {KEY}", "team-a is text; it must be a mapping with key"),
        ("team-a:", "team-a is nothing; it must be a mapping"),
        (f"team-a: {{{KEY}}}", "team-a has a name of 17 characters; it takes key, models, limits, metrics"),
        (f"team-a: {{key: {KEY}, model: [a]}}", "team-a has 'model'; it takes"),
        (f"team-a: {{key: {KEY}, 3: [a]}}", "team-a has a field that is the number 3"),
        ("team-a: {models: [a]}", "team-a.key is missing; it must be 16 to 512 visible ASCII characters"),
        ("team-a: {key: 1234567890123456789}", "team-a.key is a number; it must be text, so put it into quotes"),
        ("team-a: {key: gw-short}", "team-a.key has 8 characters"),
        (f"team-a: {{key: '{KEY} x'}}", "team-a.key has a character that an HTTP header cannot carry"),
        (f"team-a: {{key: '{KEY}é'}}", "team-a.key has a character"),
        (f"team-a: {{key: {KEY}}}\nteam-b: {{key: {KEY}}}", "team-b: its key is that of team-a too"),
        (f"team-a: {{key: {KEY}}}\nteam-a: {{key: x}}", "'team-a' is there twice (line 1); remove one of them"),
        (f"team-a: {{key: {KEY}, key: {KEY}1}}", "'key' is there twice"),
        (f"{KEY}: {{}}\n{KEY}: {{}}", "a name of 17 characters is there twice"),
        (f"team-a: {{key: {KEY}, models: medical}}", "team-a.models is text; it must be a list"),
        (f"team-a: {{key: {KEY}, models: [a, 2]}}", "team-a.models[1] is the number 2"),
        (f"team-a: {{key: {KEY}, models: ['']}}", "team-a.models[0] is text; it must be a model's name of 1 to 128 characters"),
        (f"team-a: {{key: {KEY}, metrics: 1}}", "team-a.metrics is the number 1; it must be true"),
        (f"team-a: {{key: {KEY}, metrics: true, models: []}}", "team-a has metrics and models"),
        (f"team-a: {{key: {KEY}, metrics: true, limits: {{}}}}", "team-a has metrics and limits"),
        (f"team-a: {{key: {KEY}, limits: 5}}", "team-a.limits is the number 5; it must be a mapping"),
        (f"team-a: {{key: {KEY}, limits: {{perDay: 5}}}}", "team-a.limits has 'perDay'; it takes requestsPerMinute, tokensPerMinute, concurrent"),
        (f"team-a: {{key: {KEY}, limits: {{concurrent: 0}}}}", "team-a.limits.concurrent is the number 0; it must be a whole number >= 1"),
        (f"team-a: {{key: {KEY}, limits: {{concurrent: 1.5}}}}", "team-a.limits.concurrent is the number 1.5"),
        (f"team-a: {{key: {KEY}, limits: {{concurrent: true}}}}", "team-a.limits.concurrent is a truth value"),
        (f"team-a: {{key: {KEY}, limits: {{concurrent: '8'}}}}", "team-a.limits.concurrent is text"),
        (f"team-a: {{key: {KEY}, limits: {{tokensPerMinute: 1e400}}}}", "team-a.limits.tokensPerMinute is"),
        (f"team-a: {{key: {KEY}\nteam-b", "is not valid YAML at line"),
        (f"team-a:\n\tkey: {KEY}", "is not valid YAML at line 2"),
        (f"team-a: {{key: !{KEY} x}}", "is not valid YAML at line 1"),
        (f"team-a: {{key: *{KEY}}}", "has a reference (*) in line 1"),
        (f"a: &x {{key: {KEY}}}\nb: {{<<: *x}}", "has a reference (*) in line 2"),
        (f"a: {{<<: {{key: {KEY}}}, <<: {{}}}}", "'<<' is there twice"),
        ("[" * 100_000, "is nested too deeply in line 1"),
        ("- " * 100_000, "is nested too deeply in line 1"),
        ("? " * 100_000, "is nested too deeply in line 1"),
        ("a: {models: [[[x]]]}", "is nested too deeply in line 1"),
        ("\x00", "is not valid YAML"),
        ("a: 2026-13-45", "is not valid YAML"),
    ],
)
def test_a_refusal_names_entry_field_and_rule_and_never_a_key(text: str, words: str) -> None:
    with pytest.raises(KeysFileError) as caught:
        parse(text.encode())
    assert words in str(caught.value)
    assert "gw-" not in str(caught.value).replace("(gw-6…)", "")
    assert "1234567" not in str(caught.value)


def test_a_long_name_is_told_by_its_place() -> None:
    with pytest.raises(KeysFileError, match=r"^entry 2 \(gw-6…\) is text"):
        parse(f"{GOOD}{KEY}: team-b".encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(KeysFileError, match="UTF-8"):
        parse(b"\xff\xfe\xff")


@given(st.binary(max_size=80) | st.text(alphabet="ab: {}[]\n-*&!'\"#,|>?%@`0", max_size=60).map(str.encode))
def test_any_bytes_are_entries_or_a_refusal(data: bytes) -> None:
    try:
        entries = parse(data).entries
    except KeysFileError:
        return
    jsonschema.validate({"apiVersion": API_VERSION, "keys": entries}, SCHEMA)


def test_the_example_is_valid_and_its_two_objects_fit_together() -> None:
    text = (Path(__file__).parents[3] / "examples/03-api-keys.yaml").read_text()
    keys = text.partition("<<END\n")[2].partition("#   END")[0].replace("#   ", "").replace("$(openssl rand -hex 24)", "0" * 48)
    deployment = yaml.safe_load(text)
    number = itertools.count()
    found = parse(re.sub("0{48}", lambda _: f"{next(number):048}", keys).encode())
    assert ([entry["name"] for entry in found.entries], found.left_out) == (["team-a", "team-b", "prometheus"], [])
    assert f"create secret generic {LLMDeployment.from_object(deployment).spec.service.api_keys_secret} " in text
