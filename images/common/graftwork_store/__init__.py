"""What the agent and the trainer share: the store of adapters, sources of models and data, digests and fingerprints."""
