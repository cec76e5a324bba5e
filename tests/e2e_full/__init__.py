"""Models that answer with vectors and scores, on the embedded cluster: `make e2e-full`. Each starts an engine, so they are no part of `make test`."""
