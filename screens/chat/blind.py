"""Blind ratings in Chat: two replies side by side whose models stay hidden until the user says which is better."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from workbench.engine.client.conversations import run_of
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from screens.chat.targets import ReplyTarget
    from screens.chat.transcript import TurnView
    from workbench.engine.client.conversations import Said
    from workbench.evaluation.preferences import Preference, Rating
    from workbench.runs.folder import RunFolder
    from workbench.storage.paths import Home

Side = Literal["left", "even", "right"]
SIDES = ("left", "right")

_SCORES = {"left": 0.0, "even": 0.5, "right": 1.0}


@dataclass(frozen=True)
class _Shown:
    """Two replies on screen: their targets and texts from left to right."""

    view: TurnView
    question: str
    targets: tuple[ReplyTarget, ReplyTarget]
    replies: tuple[Said, Said]


class BlindRating:
    """Shuffles two reply targets for each question, and saves the user's rating of their replies.

    A question with its replies can be rated until the next one is asked.

    Attributes:
        targets: the two, in the order in which they were chosen; empty while blind rating is off.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._run: RunFolder | None = None
        self._shown: _Shown | None = None
        self.targets: tuple[ReplyTarget, ...] = ()

    @property
    def is_on(self) -> bool:
        """Whether the next question is answered blind."""
        return bool(self.targets)

    @property
    def is_waiting(self) -> bool:
        """Whether two replies wait for a rating."""
        return self._shown is not None

    async def start(self, targets: tuple[ReplyTarget, ...]) -> None:
        """Switch it on for two targets.

        Raises:
            WorkbenchError: they are not two, or none of them is a run, with which ratings are kept.
        """
        run = await asyncio.to_thread(_run_for_ratings, self._home, targets)
        if len(targets) != 2 or run is None:
            raise WorkbenchError(
                "A blind comparison has two models side by side, at least one of them a run's adapter.",
                "Choose a run with m, or two models with c.",
                kind="blind",
            )
        self._run, self.targets = run, targets

    def stop(self) -> None:
        """Switch it off; replies that wait for a rating are shown with their names."""
        self.targets = ()
        self.reveal()

    def next_order(self, targets: tuple[ReplyTarget, ...]) -> tuple[ReplyTarget, ...]:
        """Begin the next question: the targets from left to right, in their own order while it is off."""
        self.forget()
        return tuple(random.sample(targets, len(targets))) if self.is_on else targets

    def await_rating(
        self, view: TurnView, question: str, targets: Sequence[ReplyTarget], replies: Sequence[Said], *, whole: bool
    ) -> None:
        """Let the user rate two replies. If they are not ``whole``, or not two, show the names at once."""
        if len(replies) == len(targets) == 2 and whole:
            first, second = targets
            self._shown = _Shown(view, question, (first, second), (replies[0], replies[1]))
            return
        _reveal(view, targets)

    def reveal(self) -> None:
        """Show the names over replies that wait for a rating."""
        if self._shown is not None:
            _reveal(self._shown.view, self._shown.targets)
        self.forget()

    def forget(self) -> None:
        """Accept no rating of the last replies any more; their names stay hidden."""
        self._shown = None

    async def rate(self, side: Side) -> Preference:
        """Save the user's rating and show the names.

        Returns:
            The sum of the user's ratings of these two.

        Raises:
            WorkbenchError: it cannot be saved; the replies can still be rated then.
        """
        shown, run = self._shown, self._run
        assert shown is not None
        assert run is not None
        rating = _rating(shown, side, self.targets)
        preference = await asyncio.to_thread(_save, run, rating)
        self.reveal()
        return preference


def _run_for_ratings(home: Home, targets: Sequence[ReplyTarget]) -> RunFolder | None:
    """The first run among the targets; ratings are saved in its folder."""
    found = (run_of(home, target.target) for target in targets if target.is_tuned)
    return next((run for run in found if run is not None), None)


def _reveal(view: TurnView, targets: Sequence[ReplyTarget]) -> None:
    for column, target in zip(view.columns, targets, strict=True):
        column.reveal(target.who)


def _rating(shown: _Shown, side: Side, order: Sequence[ReplyTarget]) -> Rating:
    """The rating as it is saved: the two models in ``order``, whichever was on the left."""
    from workbench.evaluation.preferences import Rating

    pairs = list(zip(shown.targets, shown.replies, strict=True))
    score = _SCORES[side]
    if pairs[0][0] != order[0]:
        pairs, score = pairs[::-1], 1 - score
    (first, first_reply), (second, second_reply) = pairs
    return Rating(
        time=time.time(),
        rater="user",
        names=(_name(first), _name(second)),
        prompt=shown.question,
        replies=(first_reply.text, second_reply.text),
        scores=(score,),
    )


def _name(target: ReplyTarget) -> str:
    from workbench.evaluation.result import BASE

    return f"{target.name}{target.strength}" if target.is_tuned else BASE


def _save(run: RunFolder, rating: Rating) -> Preference:
    from workbench.evaluation.preferences import USER, add_ratings, preferences_of

    add_ratings(run, [rating])
    sums = (one for one in preferences_of(run) if one.rater == USER and one.names == rating.names)
    return next(sums)
