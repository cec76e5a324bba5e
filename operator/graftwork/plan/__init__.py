"""What ought to exist, computed without I/O from what was observed: one function per child object."""
