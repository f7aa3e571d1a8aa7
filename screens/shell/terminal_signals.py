"""Signals to the terminal: a notification, a bell and a title, as escape sequences."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from workbench.plain_text import plain
from workbench.units import clock, loss_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.runs.summary import RunSummary

_LONGEST = 200


def end_of_run(summary: RunSummary, name: str) -> tuple[str, str]:
    """Return the title and the text of the notification at the end of a run."""
    steps = f"step {summary.step}/{summary.max_steps}" if summary.max_steps else f"step {summary.step}"
    facts = [steps]
    if isinstance(summary.loss, int | float):
        facts.append(f"loss {loss_text(summary.loss)}")
    if summary.seconds is not None:
        facts.append(f"in {clock(summary.seconds)}")
    if summary.state != "finished" and summary.reason:
        facts.append(summary.reason)
    return f"{name} {summary.state}", ", ".join(facts)


def notification(title: str, text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the sequences that notify, name the window and ring the bell.

    OSC 777 where the terminal is known for it (rxvt, foot, VTE), else OSC 9, which iTerm2, kitty, WezTerm, Ghostty and
    Windows Terminal know; those that know neither ignore it. tmux hands a notification on if ``allow-passthrough`` is
    on, and takes the name of the window for itself.
    """
    title, text = _one_line(title), _one_line(text)
    speaks_777 = environ.get("TERM", "").startswith(("rxvt", "foot")) or "VTE_VERSION" in environ
    # A semicolon ends the title in OSC 777.
    osc = f"\x1b]777;notify;{title.replace(';', ',')};{text}\x07" if speaks_777 else f"\x1b]9;{title}: {text}\x07"
    if "TMUX" in environ:
        osc = "\x1bPtmux;" + osc.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return osc + f"\x1b]2;{title}, {text}\x07" + "\x07"


def tell_terminal(sequences: str) -> None:
    """Write escape sequences that draw nothing to the terminal, in one piece; without a terminal nothing is done."""
    # Textual draws on the same stream. A single write is never inside one of its own.
    stream = sys.__stderr__
    if stream is not None and stream.isatty():
        os.write(stream.fileno(), sequences.encode())


def _one_line(text: str) -> str:
    """Text from outside without control characters, of a length that a notification shows."""
    return " ".join(plain(text).split())[:_LONGEST]
