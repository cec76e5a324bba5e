"""What a build needs of this machine's package set-up: certificates, and the addresses that pip and apt are configured with.

It is mounted read-only while a build runs and never copied, so no image and no file of the repository names a mirror of this machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries")
UV_SETTINGS = {"index-url": "index-url", "extra-index-url": "extra-index-url", "trusted-host": "allow-insecure-host"}
UV_LISTS = frozenset({"extra-index-url", "allow-insecure-host"})
MIRROR_LINE = re.compile(r"^deb[ \t]+(?:\[[^\]]*\][ \t]+)?(\S+)[ \t]+(\S+)[ \t]+(.+)$", re.MULTILINE)


def parse_pip_config(text: str) -> dict[str, str]:
    """Settings from the output of `pip config list`; the environment wins over files, as in pip; only those that mean the same elsewhere are kept."""
    found: dict[str, str] = {}
    lines = [re.fullmatch(r"(global|install|:env:)\.([a-z-]+)='(.*)'", line) for line in text.splitlines()]
    for match in sorted((m for m in lines if m), key=lambda m: m.group(1) == ":env:"):
        if match.group(2) in PIP_SETTINGS:
            found[match.group(2)] = match.group(3)
    return found


def pip_conf(settings: dict[str, str]) -> str:
    """The settings as a pip.conf; the certificates are where the build mounts them."""
    lines = [f"{key} = {_continued(value)}" for key, value in sorted(settings.items())]
    return "\n".join(["[global]", f"cert = {CERTIFICATES}", *lines]) + "\n"


def uv_toml(settings: dict[str, str]) -> str:
    """The settings that uv has too, as its system-wide uv.toml."""
    lines = []
    for key, name in UV_SETTINGS.items():
        values = settings.get(key, "").replace("\\n", " ").split()
        if values:
            quoted = [f'"{value}"' for value in values]
            lines.append(f"{name} = [{', '.join(quoted)}]" if name in UV_LISTS else f"{name} = {quoted[0]}")
    return "\n".join(lines) + "\n"


def apt_conf(dump: str) -> str:
    """Proxies and certificates out of `apt-config dump`; the certificates are where the build mounts them."""
    kept = re.findall(r'^(Acquire::(?:https?|ftp)::(?:Proxy|Verify)[^"]*"[^"]+";)$', dump, re.MULTILINE | re.IGNORECASE)
    return "\n".join([*kept, f'Acquire::https::CAInfo "{CERTIFICATES}";']) + "\n"


def debian_mirror(suite: str, texts: list[str]) -> str | None:
    """The mirror from which this machine's apt takes `suite`; None where it is another system, and debootstrap's own default applies."""
    found: list[str] = []
    for text in texts:
        found += [address for address, name, components in MIRROR_LINE.findall(text) if name == suite and "main" in components.split()]
        for stanza in text.split("\n\n"):
            fields = dict(re.findall(r"^(Types|URIs|Suites|Components|Enabled):\s*(.+)$", stanza, re.MULTILINE))
            words = {key: value.split() for key, value in fields.items()}
            wanted = suite in words.get("Suites", []) and "main" in words.get("Components", []) and "deb" in words.get("Types", [])
            if wanted and words.get("Enabled", ["yes"]) != ["no"]:
                found += words.get("URIs", [])
    # Other projects' repositories name Debian's suite and a component `main` too; Debian's own ends like this on nearly every mirror.
    return next((address for address in found if address.rstrip("/").endswith("/debian")), next(iter(found), None))


def apt_sources(root: Path = Path("/etc/apt")) -> list[str]:
    """The texts of this machine's apt sources."""
    files = [root / "sources.list", *sorted((root / "sources.list.d").glob("*.list")), *sorted((root / "sources.list.d").glob("*.sources"))]
    return [file.read_text(errors="replace") for file in files if file.is_file()]


def certificates() -> str | None:
    """This machine's CA bundle."""
    candidates = [os.environ.get("SSL_CERT_FILE", ""), CERTIFICATES, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"]
    return next((path for path in candidates if path and Path(path).is_file()), None)


def _continued(value: str) -> str:
    return "\n    ".join(value.replace("\\n", " ").split())


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def build_mounts(folder: Path, wheels: Path) -> list[str]:
    """Write the settings under `folder` and return buildah's `--volume` values, all read-only."""
    settings = parse_pip_config(_output(sys.executable, "-m", "pip", "config", "list"))
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        "/etc/pip.conf": pip_conf(settings),
        "/etc/uv/uv.toml": uv_toml(settings),
        "/etc/apt/apt.conf.d/90build": apt_conf(_output("apt-config", "dump")),
    }
    mounts = []
    for target, text in written.items():
        source = folder / Path(target).name
        source.write_text(text)
        mounts.append(f"{source}:{target}:ro")
    bundle = certificates()
    if bundle:
        mounts.append(f"{bundle}:{CERTIFICATES}:ro")
    if wheels.is_dir():
        mounts.append(f"{wheels}:/wheels:ro")
    return mounts
