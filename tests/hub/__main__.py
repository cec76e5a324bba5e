"""`python3 -m tests.hub --port 8080 --root <folder>`: serves `<folder>/<owner>/<name>/…` as repositories.

`<folder>/<owner>/<name>/.hub.json` may say `{"private": true, "gated": true, "readers": ["<token>"]}`; `--token <token>=<user>` makes a token known.
`POST /-/reload` commits what lies there by then; older commits stay.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from aiohttp import web

from tests.hub.content import read_folder
from tests.hub.server import Hub

RELOAD = "/-/reload"


def load(root: Path, tokens: list[str], files_url: str = "") -> Hub:
    """Return a hub of the repositories below a folder."""
    hub = Hub(tokens=dict(token.partition("=")[::2] for token in tokens), files_url=files_url)
    commit(hub, root)
    return hub


def commit(hub: Hub, root: Path) -> None:
    """Commit what lies below a folder now to the branch main of each repository; one whose files are the same keeps its commit."""
    for folder in sorted(path for path in root.glob("*/*") if path.is_dir()):
        settings = folder / ".hub.json"
        access = json.loads(settings.read_text()) if settings.exists() else {}
        name, files = f"{folder.parent.name}/{folder.name}", read_folder(folder)
        known = hub.repositories.get(name)
        if known and {path: file.data for path, file in known.commits[known.refs["main"]].items()} == files:
            continue
        print(f"{name} at {hub.add(name, files, **access)}", flush=True)


def app(hub: Hub, root: Path) -> web.Application:
    """Return the hub's application, with a route that commits what lies in the folder by now."""

    async def reload(request: web.Request) -> web.Response:
        commit(hub, root)
        return web.json_response({name: found.refs["main"] for name, found in hub.repositories.items()})

    made = hub.app()
    made.router.add_post(RELOAD, reload)
    return made


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(
        prog="tests.hub",
        description="A hub of models that speaks the Hugging Face HTTP API.",
    )
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--token", action="append", default=[], metavar="TOKEN=USER")
    parser.add_argument(
        "--files-url",
        default="",
        help="another address of this server, to which large files are redirected",
    )
    given = parser.parse_args()
    web.run_app(
        app(load(given.root, given.token, given.files_url), given.root),
        host=given.host,
        port=given.port,
        print=None,
    )


if __name__ == "__main__":
    main()
