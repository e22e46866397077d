"""The coordinator at work: the loop, the worker processes, signals and the machine."""
