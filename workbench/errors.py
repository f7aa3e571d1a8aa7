"""The one error a user may see: a sentence that says what is wrong, and one that says what to do."""


class WorkbenchError(Exception):
    """A mistake or a lack that the user can mend.

    The CLI prints it without a traceback and exits with 1; a screen shows it and lives on; the engine sends it
    over the wire as ``{"message", "cure", "kind"}``.

    Args:
        message: one sentence: what is wrong, with the name of the thing at fault.
        cure: one sentence: what to do about it. Empty only where the message already says it.
        kind: a short, stable word for programs (``"model_not_found"``, ``"disk_full"``, …).
    """

    def __init__(self, message: str, cure: str = "", *, kind: str = "error") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.message} {self.cure}".strip()

    def as_json(self) -> dict[str, str]:
        return {"message": self.message, "cure": self.cure, "kind": self.kind}

    @classmethod
    def from_json(cls, data: dict[str, str]) -> "WorkbenchError":
        return cls(data.get("message", "unknown error"), data.get("cure", ""), kind=data.get("kind", "error"))
