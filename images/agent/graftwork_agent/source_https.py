"""An adapter behind https://: a folder, of which the allow-listed names are asked for, or an archive."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from graftwork_store.digest import ALLOWED_FILES, REQUIRED_FILES, WEIGHTS_FILE
from graftwork_store.errors import CredentialsMissing, DiskFull, SourceDenied, SourceInvalid, SourceNotFound, SourceUnreachable, StoreError
from yarl import URL

from graftwork_agent import archives, backoff
from graftwork_agent.adapter_sources import Resolved, check_names, check_size, too_large
from graftwork_agent.trust import secret_is_missing, ssl_context

ATTEMPTS = 4
_REDIRECTS = 5
_CHUNK_BYTES = 256 << 10
_PICKLE = "adapter_model.bin"
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=60.0)
_WEB_PAGES = ("text/html", "application/xhtml+xml")


class _Forbidden(SourceDenied):
    """HTTP 403, which servers that list no folders to a reader also answer for what is not there (S3 does)."""


@dataclass
class _Session:
    """What every request of one download needs. `left` is how many bytes may still come."""

    http: aiohttp.ClientSession
    source: str
    origin: URL
    authorization: str
    secret_is_missing: bool
    limit: int
    left: int

    def sendable(self, url: URL) -> dict[str, str]:
        """The headers for a URL: the credentials go to the source's own scheme, host and port only, wherever a redirect leads."""
        same = url.origin() == self.origin
        return {"Authorization": self.authorization} if self.authorization and same else {}


def parse(uri: str) -> tuple[URL, bool]:
    """Return the URL and whether it is an archive; raises SourceInvalid."""
    try:
        url = URL(uri)
        host = url.host
    except ValueError as error:
        raise SourceInvalid(f"source {_plain(uri)!r}: not a URL ({error})") from None
    archive = url.path.endswith(archives.SUFFIXES)
    if url.scheme != "https" or not host:
        raise SourceInvalid(f"source {_plain(uri)!r}: must be https://<host>/…; other schemes would send adapters and credentials unprotected")
    if url.user or url.password or url.query_string or url.fragment or "?" in uri or "#" in uri:
        raise SourceInvalid(
            f"source {_plain(uri)!r}: must have no user, query or fragment, for sources are shown in status; "
            "put credentials in key AUTHORIZATION of credentialsSecret"
        )
    if not archive and not url.path.endswith("/"):
        raise SourceInvalid(f"source {uri!r}: must end with / (a folder) or with one of {', '.join(archives.SUFFIXES)} (an archive)")
    return url, archive


def fetch(uri: str, to: Path, env: Mapping[str, str], limit: int) -> Resolved:
    """Download the folder's files, or the archive and what is in it; an archive's revision is its etag."""
    url, archive = parse(uri)
    return asyncio.run(_fetch(url, archive, to, env, limit))


async def _fetch(url: URL, archive: bool, to: Path, env: Mapping[str, str], limit: int) -> Resolved:
    connector = aiohttp.TCPConnector(ssl=ssl_context(env))
    headers = {"Accept-Encoding": "identity", "User-Agent": "graftwork-agent"}
    async with aiohttp.ClientSession(
        connector=connector, timeout=_TIMEOUT, headers=headers, auto_decompress=False, trust_env=True, cookie_jar=aiohttp.DummyCookieJar()
    ) as http:
        session = _Session(http, str(url), url.origin(), env.get("AUTHORIZATION", ""), secret_is_missing(env, "AUTHORIZATION"), limit, limit)
        if not archive:
            await _folder(session, url, to)
            return Resolved(str(url), "")
        packed = to.parent / f".{to.name}-archive"
        try:
            etag = await _file(session, url, packed)
            await asyncio.to_thread(archives.extract, str(url), packed, to, limit)
        finally:
            packed.unlink(missing_ok=True)
        return Resolved(str(url), etag)


async def _folder(session: _Session, url: URL, to: Path) -> None:
    for name in ALLOWED_FILES:
        try:
            await _file(session, url / name, to / name)
        except SourceNotFound:
            if name not in REQUIRED_FILES:
                continue
            if name != WEIGHTS_FILE:
                raise
            pickles = [_PICKLE] if await _there(session, url / _PICKLE) else []
            check_names(str(url), [*(other for other in REQUIRED_FILES if other != name), *pickles])
        except _Forbidden:  # the required ones come first: where they came with the same credentials, this one is not there
            if name in REQUIRED_FILES:
                raise


async def _there(session: _Session, url: URL) -> bool:
    try:
        answer = await _open(session, url, "HEAD")
    except StoreError:
        return False
    answer.release()
    return True


async def _file(session: _Session, url: URL, path: Path) -> str:
    """Download one file, again when it breaks off, and return its etag."""
    for attempt in range(1, ATTEMPTS + 1):
        before = session.left
        try:
            return await _once(session, url, path)
        except SourceUnreachable as error:
            if attempt == ATTEMPTS:
                raise
            session.left = before
            print(f"{error}; attempt {attempt} of {ATTEMPTS}", flush=True)
            await asyncio.sleep(backoff.delay(attempt))
    raise AssertionError("unreachable")


async def _once(session: _Session, url: URL, path: Path) -> str:
    answer = await _open(session, url, "GET")
    try:
        if answer.content_length is not None:
            if answer.content_length > session.left:
                raise too_large(session.source, session.limit - session.left + answer.content_length, session.limit)
            check_size(str(url), answer.content_length, session.limit, path.parent)
        with path.open("wb") as file:
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                session.left -= len(chunk)
                if session.left < 0:
                    raise too_large(session.source, session.limit - session.left, session.limit)
                file.write(chunk)
    except aiohttp.ClientError as error:
        raise SourceUnreachable(f"{url}: broke off ({type(error).__name__}); it is tried again") from None
    except TimeoutError:
        raise SourceUnreachable(f"{url}: sent nothing for {_TIMEOUT.sock_read:.0f} s; it is tried again") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{url}: no room left on the volume; give it a larger size") from None
        raise
    finally:
        answer.close()
    return _etag(answer)


async def _open(session: _Session, url: URL, method: str) -> aiohttp.ClientResponse:
    """Send a request, follow redirects, and return an answer of 200 that is a file."""
    target = url
    for _ in range(_REDIRECTS + 1):
        try:
            answer = await session.http.request(method, target, headers=session.sendable(target), allow_redirects=False)
        except aiohttp.ClientConnectorCertificateError as error:
            raise SourceUnreachable(
                f"{url}: {target.host} has a certificate that is not trusted ({error.certificate_error}); put its authority into key ca.crt of "
                "credentialsSecret"
            ) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = type(error).__name__
            raise SourceUnreachable(
                f"{url}: {target.host} does not answer ({why}); check the address and that the network lets the pod reach it"
            ) from None
        if answer.status not in (301, 302, 303, 307, 308):
            return _checked(session, url, answer)
        location = answer.headers.get("Location", "")
        answer.release()
        target = _next(url, target, location)
    raise SourceInvalid(f"{url}: more than {_REDIRECTS} redirects; name the address that they lead to")


def _next(url: URL, target: URL, location: str) -> URL:
    try:
        found = target.join(URL(location))
    except ValueError:
        found = URL()
    if found.scheme != "https" or not found.host or found.user or found.password:
        raise SourceInvalid(f"{url}: redirects to {_plain(location)!r}, which is not https://<host>/…; name an address that is")
    return found


def _checked(session: _Session, url: URL, answer: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    error: StoreError | None = None
    if answer.status in (401, 403) and session.secret_is_missing:
        error = CredentialsMissing(
            f"{url}: refused (HTTP {answer.status}), and the Secret of credentialsSecret is not there, or has no key AUTHORIZATION; create it, or "
            "correct the name"
        )
    elif answer.status in (401, 403):
        given = "AUTHORIZATION of credentialsSecret was sent" if session.authorization else "credentialsSecret has no key AUTHORIZATION"
        error = (_Forbidden if answer.status == 403 else SourceDenied)(
            f"{url}: refused (HTTP {answer.status}; {given}); set key AUTHORIZATION of credentialsSecret to the whole value of the header, "
            "for example 'Bearer <token>'"
        )
    elif answer.status in (404, 410):
        error = SourceNotFound(f"{url}: nothing lies there (HTTP {answer.status}); upload it or correct the source")
    elif answer.status == 429 or answer.status >= 500:
        error = SourceUnreachable(f"{url}: the server cannot give it now (HTTP {answer.status}); it is tried again")
    elif answer.status != 200:
        error = SourceInvalid(f"{url}: answered HTTP {answer.status}, must be 200; correct the source")
    elif answer.content_type in _WEB_PAGES:
        error = SourceNotFound(
            f"{url}: a web page instead of the file; name the address of the file itself, or set AUTHORIZATION if it is a login page"
        )
    elif answer.headers.get("Content-Encoding", "identity") != "identity" and not url.path.endswith(archives.SUFFIXES):
        error = SourceInvalid(
            f"{url}: is sent compressed ({answer.headers['Content-Encoding']}) though it was not asked for; turn that off on the server"
        )
    if error:
        answer.close()
        raise error
    return answer


def _etag(answer: aiohttp.ClientResponse) -> str:
    return answer.headers.get("ETag", "").removeprefix("W/").strip('"')


def _plain(text: str) -> str:
    """Return a URL without what may be secret in it: query, fragment, user."""
    head = text.partition("?")[0].partition("#")[0]
    scheme, mark, rest = head.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"[:300] if mark else head[:300]
