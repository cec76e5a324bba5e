"""A certificate authority of its own and a server's certificate by it, made with the openssl program."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Authority:
    """The authority's certificate, and the context of a server that it vouches for as 127.0.0.1 and localhost."""

    ca: Path
    server: ssl.SSLContext


def make_authority(folder: Path) -> Authority:
    """Make both in a folder."""
    ca, key, cert, server_key = (folder / name for name in ("ca.crt", "ca.key", "server.crt", "server.key"))
    base = ("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "30")
    _run(*base, "-keyout", str(key), "-out", str(ca), "-subj", "/CN=test authority", "-addext", "keyUsage=critical,keyCertSign")
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    signed = ("-CA", str(ca), "-CAkey", str(key), "-addext", names, "-addext", "basicConstraints=critical,CA:FALSE")
    _run(*base, *signed, "-keyout", str(server_key), "-out", str(cert), "-subj", "/CN=server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, server_key)
    return Authority(ca, context)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
