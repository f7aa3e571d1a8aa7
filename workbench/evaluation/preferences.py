"""Which of two replies was preferred: ratings by the user or a judge, kept in a run's folder, and their sums."""

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import WorkbenchError
from workbench.evaluation.bootstrap import DRAWS
from workbench.evaluation.paired import paired_means
from workbench.evaluation.result import BASE, Interval
from workbench.runs.folder import RunFolder

FILE = "ratings.jsonl"
USER = "user"


class Rating(BaseModel):
    """One preference between two replies to the same prompt.

    Attributes:
        rater: who rated. judge: name of the judge's model; empty for the user.
        names: of the two models; the base is the first if it is one of them.
        scores: one for each order in which the pair was shown: 1 if the second model's reply was preferred, 0 if the
            first's, 0.5 for neither.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    time: float
    rater: Literal["user", "judge"]
    judge: str = ""
    names: tuple[str, str]
    prompt: str
    replies: tuple[str, str]
    scores: tuple[float, ...] = Field(min_length=1, max_length=2)

    @property
    def score(self) -> float:
        """The mean over orders."""
        return sum(self.scores) / len(self.scores)

    @property
    def key(self) -> tuple[object, ...]:
        """What was rated and by whom; of several ratings with one key, the last counts."""
        return self.rater, self.judge, self.names, self.prompt, self.replies


class Preference(BaseModel):
    """The sum of ratings of one pair of models by one rater.

    Attributes:
        wins, losses, ties: prompts on which the second of ``names`` did better or worse than the first, or neither.
        win_rate: mean score of the second model; a tie counts half. With an interval over prompts.
        agreement: share of the prompts shown in both orders on which both gave the same; None if none was.
    """

    model_config = ConfigDict(frozen=True)

    rater: Literal["user", "judge"]
    judge: str
    names: tuple[str, str]
    wins: int
    losses: int
    ties: int
    win_rate: Interval
    agreement: float | None

    @property
    def ratings(self) -> int:
        """How many prompts were rated."""
        return self.wins + self.losses + self.ties


def add_ratings(run: RunFolder, ratings: Sequence[Rating]) -> Path:
    """Append ratings to the run's file, which only its owner can read.

    Raises:
        WorkbenchError: the file cannot be written.
    """
    path = run.path / FILE
    # As ASCII: a prompt may contain lone surrogates.
    text = "".join(f"{json.dumps(rating.model_dump())}\n" for rating in ratings)
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.write(text.encode("ascii"))
    except OSError as error:
        raise WorkbenchError(
            f"The rating cannot be saved in {path}: {error.strerror or error}.",
            "Free some disk space, or make the folder writable.",
            kind="disk",
        ) from None
    return path


def read_ratings(run: RunFolder) -> list[Rating]:
    """The ratings of a run, oldest first; of several of the same replies by the same rater, the last."""
    try:
        lines = (run.path / FILE).read_bytes().splitlines()
    except OSError:
        return []
    found: dict[tuple[object, ...], Rating] = {}
    for line in lines:
        try:
            rating = Rating.model_validate(json.loads(line))
        except (ValueError, ValidationError):
            # A line that a full disk cut short.
            continue
        found[rating.key] = rating
    return list(found.values())


def preferences(ratings: Sequence[Rating], *, seed: int = 0) -> list[Preference]:
    """Sum ratings by rater and pair of models, in the order of their first rating."""
    groups: dict[tuple[str, str, tuple[str, str]], list[Rating]] = {}
    for rating in ratings:
        groups.setdefault((rating.rater, rating.judge, rating.names), []).append(rating)
    return [_sum(group, seed) for group in groups.values()]


def preferences_of(run: RunFolder) -> list[Preference]:
    """The sums of a run's ratings."""
    return preferences(read_ratings(run))


def _sum(ratings: Sequence[Rating], seed: int) -> Preference:
    scores = [rating.score for rating in ratings]
    both = [rating.scores for rating in ratings if len(rating.scores) == 2]
    rates, _ = paired_means({BASE: scores}, draws=DRAWS, seed=seed)
    return Preference(
        rater=ratings[0].rater,
        judge=ratings[0].judge,
        names=ratings[0].names,
        wins=sum(score > 0.5 for score in scores),
        losses=sum(score < 0.5 for score in scores),
        ties=sum(score == 0.5 for score in scores),
        win_rate=rates[BASE],
        agreement=sum(first == second for first, second in both) / len(both) if both else None,
    )
