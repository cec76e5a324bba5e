"""Events in, wakes out. The only place that imports kopf, which is used for its watch streams and for nothing else: it writes no object."""
