"""Builds the container images of Graftwork on a machine without a registry and without a Docker engine."""
