"""Graftwork's trainer: checks a dataset, trains a LoRA adapter, compares it with its base and publishes it."""

__version__ = "0.1.0"
