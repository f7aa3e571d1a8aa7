"""The objectives that a run can have. A new one is a module here and a line in :mod:`workbench.objectives.table`."""
