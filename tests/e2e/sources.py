"""Places that adapters are imported from, on this machine: an HTTPS server with an authority of its own, and a hub that speaks the hub's HTTP API."""

from __future__ import annotations

import io
import json
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.cluster.layout import HOST_ADDRESS
from tests.e2e.adapters import Files
from tests.harness.venv import ROOT


def archive(files: Files, links: Mapping[str, str] | None = None) -> bytes:
    """Return a .tar.gz; `links` are symbolic links by name, and no name is corrected."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    return buffer.getvalue()


def openssl(folder: Path, *arguments: str) -> None:
    """Run openssl in a folder."""
    subprocess.run(("openssl", *arguments), cwd=folder, check=True, capture_output=True)


def authority(folder: Path) -> str:
    """Make an authority and a server's certificate for this machine's address in `folder`, and return the authority's certificate."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    signing = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    openssl(folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=e2e authority", *signing)
    openssl(folder, "req", "-new", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=e2e server")
    fields = ("basicConstraints=CA:FALSE", f"subjectAltName=IP:{HOST_ADDRESS}", "extendedKeyUsage=serverAuth", "authorityKeyIdentifier=keyid")
    (folder / "server.ext").write_text("\n".join(fields))
    signed_by = ("-CA", "ca.crt", "-CAkey", "ca.key", "-set_serial", "2", "-days", "2")
    openssl(folder, "x509", "-req", "-in", "server.csr", *signed_by, "-extfile", "server.ext", "-out", "server.crt")
    return (folder / "ca.crt").read_text()


class _Handler(BaseHTTPRequestHandler):
    """Gives files to those who send the right Authorization."""

    protocol_version = "HTTP/1.1"
    files: Files
    authorization: str

    def do_GET(self) -> None:
        data = self.files.get(self.path.removeprefix("/"))
        denied = self.headers.get("Authorization", "") != self.authorization
        status, body = (401, b"") if denied else (404, b"") if data is None else (200, data)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def https(folder: Path, files: Files, authorization: str) -> Iterator[tuple[str, str]]:
    """Serve files over TLS to pods; yields the address and the certificate of its authority."""
    certificate = authority(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    handler = type("Handler", (_Handler,), {"files": files, "authorization": authorization})
    server = ThreadingHTTPServer((HOST_ADDRESS, 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://{HOST_ADDRESS}:{server.server_address[1]}", certificate
    finally:
        server.shutdown()
        server.server_close()


def free_port() -> int:
    """Return a port of this machine's address in the cluster's network that nobody listens on."""
    with socket.create_server((HOST_ADDRESS, 0)) as probe:
        return int(probe.getsockname()[1])


def until_listening(process: subprocess.Popen[bytes], port: int, timeout: float = 30) -> None:
    """Return when somebody listens on the port."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the hub ended with exit code {process.returncode}"
        try:
            socket.create_connection((HOST_ADDRESS, port), timeout=1).close()
        except OSError:
            threading.Event().wait(0.1)  # a port that opens is no event for this process
        else:
            return
    raise AssertionError(f"nobody listens on {HOST_ADDRESS}:{port} after {timeout:.0f} s")


@contextmanager
def hub(root: Path, tokens: Collection[str]) -> Iterator[str]:
    """Serve the repositories below `root` as a hub does that knows these tokens, and yield its address for pods."""
    port = free_port()
    known = [f"--token={token}=user-{number}" for number, token in enumerate(tokens)]
    process = subprocess.Popen((sys.executable, "-m", "tests.hub", "--port", str(port), "--root", str(root), *known), cwd=ROOT)
    try:
        until_listening(process, port)
        yield f"http://{HOST_ADDRESS}:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


def repository(root: Path, name: str, files: Files, readers: Collection[str] = ()) -> None:
    """Put a repository `<owner>/<name>` where the hub finds it; with readers it is gated, and they are the tokens that get its files."""
    folder = root / name
    folder.mkdir(parents=True)
    for path, data in {**files, "README.md": b"---\nlibrary_name: peft\n---\n"}.items():
        (folder / path).write_bytes(data)
    if readers:
        (folder / ".hub.json").write_text(json.dumps({"gated": True, "readers": list(readers)}))
