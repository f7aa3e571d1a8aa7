"""A setting of one adapter method, and why a setting cannot be used."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """A setting of one method, by PEFT's name: a key of ``adapter.options``.

    Attributes:
        default: its value until it is set; its type is the type of the setting.
        help: what it means, in one sentence.
        choices: the allowed values, if there are few.
        least, most: bounds of a number.
    """

    default: bool | int | float | str
    help: str
    choices: tuple[bool | int | float | str, ...] = ()
    least: float | None = None
    most: float | None = None

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        if self.choices:
            return ", ".join(
                str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in self.choices
            )
        if isinstance(self.default, bool):
            return "true or false"
        kind = {int: "a whole number", float: "a number"}.get(type(self.default), "text")
        least = "" if self.least is None else f" from {self.least:g}"
        return kind + least + ("" if self.most is None else f" to {self.most:g}")

    def accepts(self, value: object) -> bool:
        """Whether a recipe may have this value."""
        if self.choices:
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if isinstance(self.default, bool) or isinstance(value, bool):
            return isinstance(self.default, bool) and isinstance(value, bool)
        if isinstance(self.default, str):
            return isinstance(value, str)
        is_number = isinstance(value, int) or (isinstance(value, float) and isinstance(self.default, float))
        if not is_number:
            return False
        assert isinstance(value, int | float)
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


@dataclass(frozen=True)
class Refusal:
    """Why a setting cannot be used.

    Attributes:
        path: its dotted key.
        reason: why, as the rest of a sentence that begins with the key.
        cure: what to do.
    """

    path: str
    reason: str
    cure: str
