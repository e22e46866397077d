"""Settings: one registry of them, and where their values come from: command line, environment, files, the handler itself."""
