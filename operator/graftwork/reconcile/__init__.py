"""observe -> plan -> apply -> status: the engine that runs it, and one file per kind that does it."""
