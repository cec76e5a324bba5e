"""Which certificate authorities a download trusts: the system's, and the one of the source's Secret."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from graftwork_store.clients import own_authority
from graftwork_store.errors import SourceInvalid


def secret_is_missing(env: Mapping[str, str], key: str) -> bool:
    """Return whether a Secret is named and nothing of it is here, neither its `key` nor ca.crt: all that a pod can see of one that does not exist."""
    path = env.get("SOURCE_CA_FILE", "")
    return bool(path) and not env.get(key) and not Path(path).exists()


def ssl_context(env: Mapping[str, str]) -> ssl.SSLContext:
    """Return the context for connections to a source; SOURCE_CA_FILE names a file of certificates that are trusted besides, if it is there.

    Raises:
        SourceInvalid: that file is not one of certificates.
    """
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath):  # an image without certificates of its own
        import certifi

        context.load_verify_locations(certifi.where())
    try:
        extra = own_authority(env).decode("ascii")
        if extra:
            context.load_verify_locations(cadata=extra)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise SourceInvalid(
            f"ca.crt of credentialsSecret ({env['SOURCE_CA_FILE']}): no certificates in it ({error}); it must be the authority's certificate in PEM"
        ) from None
    return context
