"""The command line: one verb per module, errors and exit codes in one place."""
