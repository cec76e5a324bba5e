"""Tests against a real API server (etcd and kube-apiserver, no nodes)."""
