"""Files and folders under the home: paths, atomic writes, the disk cache."""
