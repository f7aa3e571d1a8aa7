"""Progress output of commands: bars, lines and JSON."""
