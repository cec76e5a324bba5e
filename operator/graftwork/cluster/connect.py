"""How to reach the API server: the service account in a cluster, a kubeconfig elsewhere."""

from __future__ import annotations

import os
from typing import Any

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import KUBE_CONFIG_DEFAULT_LOCATION, ConfigException, load_incluster_config, load_kube_config

from graftwork.errors import ConfigError

CONNECTIONS = 32


async def connect() -> ApiClient:
    """Return a client with one connection pool; ConfigError if there is neither a service account nor a kubeconfig."""
    configuration = Configuration()
    configuration.connection_pool_maxsize = CONNECTIONS
    configuration.retries = 0  # cluster/client.py decides what may be sent twice
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            load_incluster_config(client_configuration=configuration)
        else:
            await load_kube_config(config_file=os.environ.get("KUBECONFIG") or KUBE_CONFIG_DEFAULT_LOCATION, client_configuration=configuration)
    except ConfigException as error:
        raise ConfigError(
            f"no way to the API server: {error}. In a cluster the pod needs a service account token; elsewhere set KUBECONFIG to a kubeconfig."
        ) from error
    return ApiClient(configuration)


async def bearer_token(configuration: Any) -> str | None:
    """Return the token of now (service account tokens are renewed on disk), or None where a client certificate is used."""
    header = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    return header.split(" ", 1)[-1].strip() if header else None
