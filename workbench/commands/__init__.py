"""The command line: one module a command, thin over the same core that the screens use."""
