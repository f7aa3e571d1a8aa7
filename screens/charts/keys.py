"""The keys of a chart, the same on Train, on the page of a run and in the comparison."""

from __future__ import annotations

from textual.binding import Binding


def chart_keys(*, arrows_first: bool = False) -> list[Binding]:
    """Return the bindings of the action ``chart``, which their owner hands to its chart.

    Args:
        arrows_first: take the arrows before the part that has the focus does, because it would scroll sideways.
    """

    def key(keys: str, name: str, label: str, tooltip: str, display: str = "", *, first: bool = False) -> Binding:
        return Binding(
            keys, f"chart('{name}')", label, show=False, key_display=display or None,
            priority=first, id=f"chart.{name}", tooltip=tooltip,
        )  # fmt: skip

    return [
        key("full_stop", "next", "Next quantity", "Chart: loss, learning rate, grad norm, tokens/s, VRAM …", "."),
        key("comma", "previous", "Previous quantity", "Chart: the previous quantity", ","),
        key("right_square_bracket", "smoother", "Smoother", "Chart: average over more points", "]"),
        key("left_square_bracket", "rougher", "Less smooth", "Chart: average over fewer points", "["),
        key("i", "log", "Log axis", "Chart: logarithmic or linear axis"),
        key("left", "left", "Cursor left", "Chart: read the values at an earlier step", first=arrows_first),
        key("right", "right", "Cursor right", "Chart: read the values at a later step", first=arrows_first),
        key("plus,equals_sign", "in", "Zoom in", "Chart: show half as many steps, around the cursor", "+"),
        key("minus", "out", "Zoom out", "Chart: show twice as many steps", "-"),
        key("0", "whole", "Whole run", "Chart: show all steps, without a cursor"),
        key("shift+left", "pan_left", "Pan left", "Chart: move a zoomed chart to earlier steps", first=arrows_first),
        key("shift+right", "pan_right", "Pan right", "Chart: move a zoomed chart to later steps", first=arrows_first),
    ]
