"""A run taken elsewhere: as an adapter, as merged weights, for other programs, as a script, as other tools' recipes."""
