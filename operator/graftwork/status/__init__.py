"""What a status says, computed without I/O from what was seen."""
