"""What surrounds the tabs: header, tab strip, run bar, help, dialogs, the link to the engine."""
