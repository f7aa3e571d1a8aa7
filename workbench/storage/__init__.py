"""The home folder: its paths, the settings file, atomic writes, the disk cache."""
