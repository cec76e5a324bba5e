from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from graftwork import config, logs
from graftwork.errors import ConfigError

MINIMAL = "images: {engine: e, agent: a, trainer: t}\nlease: {namespace: graftwork}\n"


def load(tmp_path: Path, text: str, **overrides: str) -> config.Config:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return config.load({"GRAFTWORK_CONFIG": str(path), **overrides})


def test_what_is_not_written_has_its_default(tmp_path: Path) -> None:
    loaded = load(tmp_path, MINIMAL)
    assert loaded.lease.name == "graftwork-operator"
    assert (loaded.resync_seconds, loaded.watch_namespaces, loaded.image_pull_policy) == (600, (), "IfNotPresent")
    assert loaded.store.credentials_secret == "graftwork-store"


def test_all_fields_of_the_chart_are_read(tmp_path: Path) -> None:
    text = (
        MINIMAL
        + """
imagePullPolicy: Never
store: {url: s3://graftwork/store, credentialsSecret: s, endpoint: http://s3:7070, claim: ""}
watchNamespaces: [ml, other]
resyncSeconds: 30
logLevel: debug
"""
    )
    loaded = load(tmp_path, text)
    assert loaded.store.endpoint == "http://s3:7070"
    assert loaded.watch_namespaces == ("ml", "other")


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    loaded = load(tmp_path, MINIMAL, GRAFTWORK_CONFIG_LEASE__NAMESPACE="test", GRAFTWORK_CONFIG_RESYNC_SECONDS="5")
    assert (loaded.lease.namespace, loaded.resync_seconds) == ("test", 5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (MINIMAL + "resyncSecond: 5", "resyncSecond: there is no such field"),
        (MINIMAL + "resyncSeconds: soon", r"resyncSeconds: .*valid number.*\(given: 'soon'\)"),
        (MINIMAL + "store: {url: ftp://x}", r"store.url: .*given: 'ftp://x'"),
        (MINIMAL + "prometheus: {url: 'prometheus:9090'}", r"prometheus.url: .*given: 'prometheus:9090'"),
        ("images: {engine: e, agent: a}\nlease: {namespace: g}", "images.trainer: Field required"),
        (
            "images: {engine: e, agent: a, trainer: t}\nlease: {namespace: g, durationSeconds: 5}",
            "renewSeconds must be at most half of durationSeconds",
        ),
        ("[]", "the top level is list"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_field_value_and_rule(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(tmp_path, text)


def test_a_missing_file_is_told_with_its_path() -> None:
    with pytest.raises(ConfigError, match=r"/nowhere/config\.yaml: the file cannot be read"):
        config.load({"GRAFTWORK_CONFIG": "/nowhere/config.yaml"})


def test_a_json_log_line_has_the_traceback() -> None:
    try:
        raise ValueError("x")
    except ValueError:
        import sys

        record = logging.LogRecord("graftwork", logging.ERROR, "f", 1, "it %s", ("failed",), sys.exc_info())
    line = json.loads(logs.JsonFormatter().format(record))
    assert (line["level"], line["message"]) == ("error", "it failed")
    assert "ValueError: x" in line["error"]
