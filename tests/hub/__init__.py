"""A hub of models that speaks the Hugging Face HTTP API, for tests and for clusters without the Internet; see `server`."""
