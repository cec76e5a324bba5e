"""What the demo, the end-to-end tests and the benchmarks share: a prepared cluster with Graftwork installed, and clients for it.

Only the standard library: `make demo` runs on a bare python3.
"""
