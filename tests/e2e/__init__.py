"""End to end: the embedded cluster's two real nodes, the real vLLM engine, real QLoRA, a real S3 server.

The files run in the order of their names and share one deployment, because a vLLM start costs half a minute of both cores.
"""
