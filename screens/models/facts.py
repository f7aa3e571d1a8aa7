"""The facts of the selected model, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from screens.widgets.glyphs import GLYPHS
from screens.widgets.plain import plain
from workbench.units import file_size

if TYPE_CHECKING:
    from screens.models.rows import ModelRow
    from screens.shell.fit import Fit


def facts_text(row: ModelRow, fit: Fit | None, *, is_wide: bool) -> Content:
    """Return the facts of a model: one per line on a wide terminal, else side by side.

    Args:
        fit: whether it fits, if that is known.
    """
    owner, _, name = plain(row.source).rpartition("/")
    title = Content.assemble((name, "bold"), (f"  {owner}" if owner else "", "$muted"))
    pairs = {
        "parameters": f"{row.parameters:,}" if row.parameters else "",
        "architecture": plain(row.architecture),
        "license": plain(row.licence) or ("unknown" if row.listed else ""),
        "dtype": plain(row.dtype),
        "context": f"{row.context_length:,} tokens" if row.context_length else "",
        "weights": _weights(row),
        "facts from": plain(row.read_from),
        "listed in": plain(row.listed),
    }
    known = [(label, value) for label, value in pairs.items() if value]
    if is_wide:
        lines = [title, *(Content.assemble((f"{label:<13}", "$muted"), value) for label, value in known)]
    else:
        parts = [Content.assemble((f"{label} ", "$muted"), value) for label, value in known]
        lines = [title, Content(f" {GLYPHS.separator} ").join(parts)]
    if row.gated and row.place != "here":
        lines.append(Content.styled("Gated: accept its license on huggingface.co and set HF_TOKEN.", "$warning"))
    if row.lack:
        lines.append(Content.styled(f"Not trainable: {plain(row.lack)}.", "$error"))
    if fit is not None:
        lines.append(Content.styled(fit.sentence, f"${fit.color}"))
    return Content("\n").join(lines)


def _weights(row: ModelRow) -> str:
    """Return where the weights are, and their size."""
    if row.place == "here":
        return f"on disk, {file_size(row.size_on_disk)}"
    if row.place == "hub":
        size = row.size_on_hub or 2 * (row.parameters or 0)
        return f"not downloaded, {file_size(size)}" if size else "hub"
    return "local folder" if row.place == "folder" else "local file"
