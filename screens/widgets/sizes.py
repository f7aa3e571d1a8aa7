"""The widths of a terminal, in cells, at which the layout changes."""

NARROW_BELOW = 110
"""Below this, panels fold under each other and tables drop columns."""

ROOMY_FROM = 160
"""From this on, there is room for more beside what a screen is about."""
