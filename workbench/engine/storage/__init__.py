"""Disk space during a run: checked before the run, waited for when the disk fills up."""
