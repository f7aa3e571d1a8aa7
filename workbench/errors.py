"""The one error a user may see: a sentence that says what is wrong, and one that says what to do."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Problem:
    """One mistake in a recipe: where, what is given there, and what is allowed."""

    path: str
    given: str
    allowed: str
    nearest: str | None = None

    def __str__(self) -> str:
        hint = f" Did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.path}: {self.given}; {self.allowed}.{hint}"

    def as_json(self) -> dict[str, str | None]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(data["path"], data["given"], data["allowed"], data.get("nearest"))


class WorkbenchError(Exception):
    """A mistake or a lack that the user can mend.

    The CLI prints it without a traceback and exits with 1; a screen shows it and lives on; the engine sends it
    over the wire as ``{"message", "cure", "kind"}``, with ``"problems"`` if there are any.

    Args:
        message: one sentence: what is wrong, with the name of the thing at fault.
        cure: one sentence: what to do about it. Empty only where the message already says it.
        kind: a short, stable word for programs (``"model_not_found"``, ``"disk_full"``, …).
        problems: of a recipe, each mistake in it; the message lists them too.
    """

    def __init__(self, message: str, cure: str = "", *, kind: str = "error", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.kind = kind
        self.problems = list(problems)

    def __str__(self) -> str:
        return f"{self.message} {self.cure}".strip()

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"message": self.message, "cure": self.cure, "kind": self.kind}
        if self.problems:
            told["problems"] = [problem.as_json() for problem in self.problems]
        return told

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "WorkbenchError":
        return WorkbenchError(
            data.get("message", "unknown error"),
            data.get("cure", ""),
            kind=data.get("kind", "error"),
            problems=[Problem.from_json(problem) for problem in data.get("problems", ())],
        )
