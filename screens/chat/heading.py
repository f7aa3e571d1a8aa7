"""Texts of the Chat tab: its heading with the reply target, the guide of an empty conversation, and a notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from screens.run_names import titled
from screens.widgets.glyphs import GLYPHS
from screens.widgets.key_texts import key, keyed
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from screens.chat.reply_targets import ReplyTargets
    from screens.chat.targets import ReplyTarget
    from screens.run_names import RunNames

_TUNED_KEYS = "{chat.beside} shows base and tuned side by side; {chat.switch} switches the adapter off and on."
_BASE_KEYS = "{tab.train} opens Train, where {train.start} starts fine-tuning."

# Cells of the heading besides the target's name, and those that the name has at least.
_OTHER_CELLS = 40
_MIN_NAME_CELLS = 40


def target_text(targets: ReplyTargets, names: RunNames, width: int, *, is_blind: bool) -> Content:
    """Return the heading for a line of ``width`` cells: the target with its state, or the targets side by side."""
    if targets.side_by_side:
        signatures = f" {GLYPHS.separator} ".join(target.signed(names) for target in targets.side_by_side)
        return Content.assemble(
            ("blind " if is_blind else "side by side ", "$foreground 70%"), (plain(signatures), "bold")
        )
    target = targets.single
    run_id = "" if target.combine else target.name
    name = titled(plain(target.named(names)), run_id, most=max(width - _OTHER_CELLS, _MIN_NAME_CELLS))
    return Content.assemble(
        ("chatting with ", "$foreground 70%"), name, _state(target, is_paused=target.target == targets.paused)
    )


def _state(target: ReplyTarget, *, is_paused: bool) -> tuple[str, str]:
    if target.is_model:
        return "  base model, no adapter", "$foreground 70%"
    if not target.adapter:
        return f"  {GLYPHS.off} base", "$warning"
    return f"  {GLYPHS.on} tuned{target.strength}" + (", paused: current weights" if is_paused else ""), "$success"


def guide_text(name: str, *, is_tuned: bool) -> Content:
    """Return the guide that an empty conversation shows: the target's name and the next keys."""
    first_line = f"{name} is ready." if is_tuned else f"No adapter yet: chatting with the base model {name}."
    return Content.assemble(
        (f"{first_line}\n", "bold"),
        (key("chat.write"), "bold $accent"),
        (" to type.\n\n", ""),
        (keyed(_TUNED_KEYS if is_tuned else _BASE_KEYS), "$foreground 70%"),
    )


def left_out_text(count: int) -> str:
    """Return the notice that ``count`` of the oldest questions do not fit into the context."""
    turns = "question and its reply are" if count == 1 else f"{count} questions and their replies are"
    return f"The context is full: the oldest {turns} no longer sent to the model."
