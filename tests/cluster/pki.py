"""Keys, certificates and kubeconfigs, made with the openssl program. They outlive `down`, so that a shell's KUBECONFIG stays right."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

from tests.cluster.cache import digest_of, write_atomically
from tests.cluster.layout import API_PORT, API_SERVICE_ADDRESS, HOST_ADDRESS, Layout
from tests.cluster.progress import ClusterError

DAYS = 365
RENEW_DAYS = 30


@dataclass(frozen=True)
class Certificate:
    """One certificate: file name, subject (whose O and CN are the Kubernetes group and user) and subject alternative names."""

    name: str
    subject: str
    alternatives: str


def certificates(layout: Layout) -> list[Certificate]:
    """Return every certificate of the cluster."""
    in_cluster = ",".join(f"DNS:kubernetes{suffix}" for suffix in ("", ".default", ".default.svc", ".default.svc.cluster.local"))
    servers = f"DNS:localhost,{in_cluster},IP:127.0.0.1,IP:{API_SERVICE_ADDRESS},IP:{HOST_ADDRESS}"
    users = [
        ("admin", "/O=system:masters/CN=admin"),
        ("controller-manager", "/CN=system:kube-controller-manager"),
        ("scheduler", "/CN=system:kube-scheduler"),
        ("proxy", "/CN=system:kube-proxy"),
        # Groups of their own would need RBAC objects for nothing: the names alone tell them apart in the audit log.
        ("coredns", "/O=system:masters/CN=graftwork:coredns"),
        ("local-path", "/O=system:masters/CN=graftwork:local-path"),
    ]
    nodes = [Certificate(n.name, f"/O=system:nodes/CN=system:node:{n.name}", f"DNS:{n.name},IP:{n.address}") for n in layout.nodes]
    plain = [Certificate(name, subject, f"DNS:{name}") for name, subject in users]
    return [
        Certificate("apiserver", "/CN=kube-apiserver", servers),
        Certificate("front-proxy", "/CN=front-proxy-client", "DNS:front-proxy"),
        *plain,
        *nodes,
    ]


def kubeconfig(layout: Layout, user: str) -> str:
    """Return a kubeconfig with everything inside, so that the file can be copied anywhere."""

    def data(name: str) -> str:
        return base64.b64encode((layout.pki / name).read_bytes()).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "graftwork", "cluster": {"server": f"https://{HOST_ADDRESS}:{API_PORT}", "certificate-authority-data": data("ca.crt")}}
        ],
        "users": [{"name": user, "user": {"client-certificate-data": data(f"{user}.crt"), "client-key-data": data(f"{user}.key")}}],
        "contexts": [{"name": "graftwork", "context": {"cluster": "graftwork", "user": user}}],
        "current-context": "graftwork",
    }
    return json.dumps(config, indent=1) + "\n"


def _openssl(folder: Path, *arguments: str) -> None:
    try:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ClusterError("openssl: not found; type: apt-get install openssl") from error
    except subprocess.CalledProcessError as error:
        raise ClusterError(f"openssl {arguments[0]} ended with {error.returncode}: {error.stderr.strip()[-300:]}") from error


def _key(folder: Path, name: str) -> None:
    # Elliptic keys: RSA keys for a dozen certificates take seconds on a small machine.
    _openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
    (folder / f"{name}.key").chmod(0o600)


def _issue(folder: Path, certificate: Certificate, serial: int) -> None:
    name = certificate.name
    _key(folder, name)
    extensions = folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName={certificate.alternatives}\nextendedKeyUsage=serverAuth,clientAuth\n")
    _openssl(folder, "req", "-new", "-key", f"{name}.key", "-subj", certificate.subject, "-out", f"{name}.csr")
    signed_by = ("-CA", "ca.crt", "-CAkey", "ca.key", "-set_serial", str(serial), "-days", str(DAYS))
    _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signed_by, "-extfile", f"{name}.ext", "-out", f"{name}.crt")


def ensure(layout: Layout) -> None:
    """Make the keys, certificates and kubeconfigs, unless they are there, for these names, and far from their end."""
    wanted = certificates(layout)
    stamp = digest_of(field for certificate in wanted for field in astuple(certificate))
    mark = layout.pki / "made"
    fresh = mark.exists() and mark.read_text() == stamp and time.time() - mark.stat().st_mtime < (DAYS - RENEW_DAYS) * 86400
    if not fresh:
        shutil.rmtree(layout.pki, ignore_errors=True)
        layout.pki.mkdir(parents=True, mode=0o700)
        _key(layout.pki, "ca")
        _openssl(layout.pki, "req", "-x509", "-new", "-key", "ca.key", "-out", "ca.crt", "-days", str(DAYS), "-subj", "/CN=graftwork-cluster")
        _key(layout.pki, "service-accounts")
        _openssl(layout.pki, "ec", "-in", "service-accounts.key", "-pubout", "-out", "service-accounts.pub")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda row: _issue(layout.pki, row[1], row[0]), enumerate(wanted, start=100)))
    for certificate in wanted:
        if certificate.name not in {"apiserver", "front-proxy"}:
            write_atomically(layout.user_kubeconfig(certificate.name), kubeconfig(layout, certificate.name), 0o600)
    if not fresh:
        mark.write_text(stamp)
