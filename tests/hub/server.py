"""A hub that speaks the HTTP API of the Hugging Face hub as huggingface_hub uses it: model facts, trees, files, access, redirects.

`tests/hub/test_contract.py` holds it against huggingface_hub itself. It keeps everything in memory and needs aiohttp only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.hub.content import File, Repository

PAGE_ENTRIES = 1000
_MODEL = "/api/models/{owner}/{name}"


class Refused(Exception):  # noqa: N818 - an answer
    """An error of the hub: status, X-Error-Code and X-Error-Message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Seen:
    """One request that came: for tests of what a client sends where."""

    method: str
    path: str
    host: str
    token: str
    range: str


@dataclass
class Hub:
    """The hub: repositories by `<owner>/<name>`, names by token, and every request that came.

    `files_url` is where large files are sent from: another host, as a content network is ("" : the hub itself, without a redirect).
    """

    tokens: dict[str, str] = field(default_factory=dict)
    files_url: str = ""
    page_entries: int = PAGE_ENTRIES
    repositories: dict[str, Repository] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def add(
        self,
        name: str,
        files: Mapping[str, bytes],
        revision: str = "main",
        **access: Any,
    ) -> str:
        """Commit files to a repository, made if it is not there; `access` is private, gated, readers. Returns the commit's sha."""
        found = self.repositories.setdefault(name, Repository(name))
        for key, value in access.items():
            setattr(found, key, frozenset(value) if key == "readers" else value)
        return found.commit(files, revision)

    def app(self) -> web.Application:
        """Return the server's application."""
        app = web.Application(middlewares=[self._answer_errors])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/api/whoami-v2", self._whoami)
        app.router.add_get(_MODEL, self._model)
        app.router.add_get(f"{_MODEL}/revision/{{revision}}", self._model)
        app.router.add_get(f"{_MODEL}/refs", self._refs)
        app.router.add_get(f"{_MODEL}/auth-check", self._auth_check)
        app.router.add_get(f"{_MODEL}/tree/{{revision}}", self._tree)
        app.router.add_get(f"{_MODEL}/tree/{{revision}}/{{path:.*}}", self._tree)
        app.router.add_post(f"{_MODEL}/paths-info/{{revision}}", self._paths_info)
        app.router.add_get("/{owner}/{name}/resolve/{revision}/{path:.*}", self._resolve)
        app.router.add_get("/large/{owner}/{name}/{sha256}", self._large)
        return app

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Any) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.seen.append(
            Seen(
                request.method,
                request.path,
                request.host,
                token,
                request.headers.get("Range", ""),
            )
        )
        try:
            return await handler(request)  # type: ignore[no-any-return]
        except Refused as error:
            headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
            return web.json_response({"error": error.message}, status=error.status, headers=headers)

    def _reader(self, request: web.Request) -> str:
        """Return the request's token, checked; "" for none."""
        given = request.headers.get("Authorization", "")
        token = given.removeprefix("Bearer ")
        if given and token not in self.tokens:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return token

    def _repository(self, request: web.Request) -> tuple[Repository, str]:
        """Return the repository of a request, and its reader; one that is private does not exist for others."""
        token = self._reader(request)
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        if name in self.moved:
            raise web.HTTPTemporaryRedirect(request.raw_path.replace(name, self.moved[name], 1))
        found = self.repositories.get(name)
        if found is None or (found.private and token not in found.readers):
            if token:
                raise Refused(404, "RepoNotFound", "Repository not found")
            raise Refused(401, "", "Invalid username or password.")  # without a code, as the hub says it to those who are not known
        return found, token

    def _commit(self, request: web.Request, found: Repository) -> str:
        revision = request.match_info.get("revision", "main")
        sha = found.resolve(revision)
        if sha is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _whoami(self, request: web.Request) -> web.Response:
        token = self._reader(request)
        if not token:
            raise Refused(401, "", "Invalid username or password.")
        return web.json_response(
            {
                "type": "user",
                "name": self.tokens[token],
                "auth": {"type": "access_token"},
            }
        )

    async def _model(self, request: web.Request) -> web.Response:
        found, _ = self._repository(request)
        sha = self._commit(request, found)
        blobs = request.query.get("blobs", "").lower() in ("true", "1")
        siblings = [file.sibling(blobs=blobs) for file in found.commits[sha].values()]
        gated = "manual" if found.gated else False
        return web.json_response(
            {
                "_id": sha[:24],
                "id": found.name,
                "modelId": found.name,
                "sha": sha,
                "private": found.private,
                "gated": gated,
                "siblings": siblings,
            }
        )

    async def _refs(self, request: web.Request) -> web.Response:
        found, _ = self._repository(request)
        branches = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in found.refs.items()]
        return web.json_response({"branches": branches, "tags": [], "converts": []})

    async def _auth_check(self, request: web.Request) -> web.Response:
        self._open(*self._repository(request))
        return web.json_response({})

    async def _tree(self, request: web.Request) -> web.Response:
        found, _ = self._repository(request)
        sha = self._commit(request, found)
        path = request.match_info.get("path", "")
        rows = found.folder(
            sha,
            path,
            recursive=request.query.get("recursive", "").lower() in ("true", "1"),
        )
        if rows is None:
            raise Refused(404, "EntryNotFound", f"{path} does not exist on {sha}")
        start = int(request.query.get("cursor", "0"))
        headers = {"X-Repo-Commit": sha}
        if start + self.page_entries < len(rows):
            following = request.url.update_query(cursor=str(start + self.page_entries))
            headers["Link"] = f'<{following}>; rel="next"'
        return web.json_response(rows[start : start + self.page_entries], headers=headers)

    async def _paths_info(self, request: web.Request) -> web.Response:
        found, _ = self._repository(request)
        files = found.commits[self._commit(request, found)]
        if request.content_type == "application/json":
            wanted: Iterable[Any] = (await request.json())["paths"]
        else:
            wanted = (await request.post()).getall("paths", [])
        return web.json_response([files[path].entry() for path in wanted if path in files])

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        found, token = self._repository(request)
        self._open(found, token)
        sha = self._commit(request, found)
        path = request.match_info["path"]
        file = found.commits[sha].get(path)
        if file is None:
            raise Refused(404, "EntryNotFound", f"{path} does not exist on {sha}")
        if not (file.large and self.files_url):
            return _answer(request, file, {"X-Repo-Commit": sha, "ETag": f'"{file.etag}"'})
        headers = {
            "X-Repo-Commit": sha,
            "X-Linked-ETag": f'"{file.etag}"',
            "X-Linked-Size": str(len(file.data)),
            "Location": f"{self.files_url}/large/{found.name}/{file.sha256}?signature=s3cr3t",
        }
        return web.Response(status=302, headers=headers)

    async def _large(self, request: web.Request) -> web.StreamResponse:
        """Send a large file: the URL's signature is the right to read, as on a content network."""
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        repository = self.repositories.get(name, Repository(name))
        files = (file for files in repository.commits.values() for file in files.values())
        file = next(
            (file for file in files if file.sha256 == request.match_info["sha256"]),
            None,
        )
        if file is None or request.query.get("signature") != "s3cr3t":
            return web.Response(status=403, text="AccessDenied")
        return _answer(request, file, {"ETag": f'"{file.sha256}"'})

    @staticmethod
    def _open(found: Repository, token: str) -> None:
        if not found.gated or token in found.readers:
            return
        if token:
            raise Refused(
                403,
                "GatedRepo",
                f"Access to model {found.name} is restricted and you are not in the authorized list.",
            )
        raise Refused(
            401,
            "GatedRepo",
            f"Access to model {found.name} is restricted. You must be authenticated to access it.",
        )


def _answer(request: web.Request, file: File, headers: dict[str, str]) -> web.Response:
    """Answer with a file or the range of it that was asked for."""
    headers |= {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'inline; filename="{file.path.rpartition("/")[2]}"',
    }
    try:
        wanted = request.http_range
    except ValueError:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{len(file.data)}"})
    begin, end, _ = slice(wanted.start, wanted.stop).indices(len(file.data))
    if "Range" not in request.headers:
        return web.Response(body=file.data, headers=headers, content_type="application/octet-stream")
    if begin >= end:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{len(file.data)}"})
    headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(file.data)}"
    return web.Response(
        status=206,
        body=file.data[begin:end],
        headers=headers,
        content_type="application/octet-stream",
    )
