"""The hub as a command: a branch moves when files have changed, and the commit of before stays."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from tests.hub.__main__ import RELOAD, app, load
from tests.hub.running import Running


def request(url: str, method: str = "GET") -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=20) as answer:
        return json.load(answer)


def test_a_reload_moves_the_branches_whose_files_have_changed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "acme" / name).mkdir(parents=True)
        (tmp_path / "acme" / name / "config.json").write_text("{}")
    hub = load(tmp_path, [])
    before = {name: found.refs["main"] for name, found in hub.repositories.items()}
    with Running(lambda: app(hub, tmp_path)) as running:
        (tmp_path / "acme" / "one" / "config.json").write_text('{"new": true}')
        after = request(f"{running.url}{RELOAD}", "POST")
        assert after["acme/two"] == before["acme/two"]
        assert after["acme/one"] != before["acme/one"]
        assert request(f"{running.url}/api/models/acme/one")["sha"] == after["acme/one"]
        assert request(f"{running.url}/api/models/acme/one/revision/{before['acme/one']}")["sha"] == before["acme/one"]
