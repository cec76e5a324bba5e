"""`kubectl graft`: what a person asks of an LLMDeployment, answered through that person's own kubectl."""
