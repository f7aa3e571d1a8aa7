"""The error type that users see: a sentence that says what is wrong, and one that says what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, Self, TypedDict


@dataclass(frozen=True)
class Problem:
    """One mistake in a recipe: the dotted key, what was given, what is allowed, and the nearest allowed value."""

    path: str
    given: str
    allowed: str
    nearest: str | None = None

    def __str__(self) -> str:
        hint = f" Did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.path}: {self.given}; {self.allowed}.{hint}"

    def as_json(self) -> "ProblemData":
        return ProblemData(path=self.path, given=self.given, allowed=self.allowed, nearest=self.nearest)

    @classmethod
    def from_json(cls, data: "ProblemData") -> Self:
        return cls(data["path"], data["given"], data["allowed"], data.get("nearest"))


class ProblemData(TypedDict):
    """A :class:`Problem` as JSON data."""

    path: str
    given: str
    allowed: str
    nearest: NotRequired[str | None]


class ErrorData(TypedDict, total=False):
    """A :class:`WorkbenchError` as JSON data."""

    message: str
    cure: str
    kind: str
    problems: list[ProblemData]


class WorkbenchError(Exception):
    """An error that the user can fix.

    The CLI prints it without a traceback and exits with 1; a screen shows it and stays open; the engine sends it to
    the terminal as :class:`ErrorData`.

    Args:
        message: one sentence that says what is wrong, naming the file, model or setting.
        cure: one sentence that says what to do. Empty only if the message already says it.
        kind: a short, stable name for programs (``"model_not_found"``, ``"disk_full"``, …).
        problems: the mistakes in a recipe; the message lists them too.
    """

    def __init__(self, message: str, cure: str = "", *, kind: str = "error", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.kind = kind
        self.problems = list(problems)

    def __str__(self) -> str:
        return f"{self.message} {self.cure}".strip()

    def as_json(self) -> ErrorData:
        data = ErrorData(message=self.message, cure=self.cure, kind=self.kind)
        if self.problems:
            data["problems"] = [problem.as_json() for problem in self.problems]
        return data

    @staticmethod
    def from_json(data: ErrorData) -> "WorkbenchError":
        return WorkbenchError(
            data.get("message", "unknown error"),
            data.get("cure", ""),
            kind=data.get("kind", "error"),
            problems=[Problem.from_json(problem) for problem in data.get("problems", ())],
        )
