"""Everything that talks to a network: the API server, the agents in serving pods, the trainers."""
