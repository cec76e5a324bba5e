"""What was observed, as frozen data: what reconcile gathers, plan decides from and status speaks of. No I/O here."""
