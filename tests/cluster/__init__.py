"""A real two-node Kubernetes cluster on one Linux machine, without Docker; run as `python3 -m tests.cluster`."""
