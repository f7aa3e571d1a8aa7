"""Texts of Chat: whom one chats with, the guide of an empty conversation, and notices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from screens.run_names import titled
from screens.widgets.glyphs import GLYPHS
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from screens.chat.reply_targets import ReplyTargets
    from screens.chat.targets import ReplyTarget
    from screens.run_names import RunNames

# Cells of the heading that are for other things than the target's name.
_AROUND_NAME = 40


def target_text(targets: ReplyTargets, names: RunNames, width: int) -> Content:
    """Return the heading for a width in cells: the target with its state, or the targets side by side."""
    if targets.beside:
        together = f" {GLYPHS.separator} ".join(one.signed(names) for one in targets.beside)
        return Content.assemble(("side by side ", "$foreground 70%"), (plain(together), "bold"))
    one = targets.one
    name = titled(
        plain(one.named(names)), "" if one.combine else one.name, most=max(width - _AROUND_NAME, _AROUND_NAME)
    )
    return Content.assemble(
        ("chatting with ", "$foreground 70%"), name, _state(one, is_paused=one.target == targets.paused)
    )


def _state(one: ReplyTarget, *, is_paused: bool) -> tuple[str, str]:
    if one.bare:
        return "  base model, no adapter", "$foreground 70%"
    if not one.adapter:
        return f"  {GLYPHS.off} base", "$warning"
    return f"  {GLYPHS.on} tuned{one.strength}" + (", paused: current weights" if is_paused else ""), "$success"


def guide_text(name: str, *, is_tuned: bool) -> Content:
    """Return what an empty conversation shows."""
    first = f"{name} is ready." if is_tuned else f"No adapter yet: chatting with the base model {name}."
    return Content.assemble(
        (f"{first}\n", "bold"),
        ("Enter", "bold $accent"),
        (" to type.\n\n", ""),
        ("s shows base and tuned side by side; b switches the adapter off and on.", "$foreground 70%")
        if is_tuned
        else ("5 opens Train, where Enter starts fine-tuning.", "$foreground 70%"),
    )


def left_out_text(count: int) -> str:
    """Return the notice that the context has no room for the oldest turns."""
    turns = "question and its reply are" if count == 1 else f"{count} questions and their replies are"
    return f"The context is full: the oldest {turns} no longer sent to the model."
