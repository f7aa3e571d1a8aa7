"""Conversations kept on disk, for their owner's eyes only: a run's in its folder, a plain model's under the home."""

import hashlib
import json
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.data.records.tool_calls import call_text
from workbench.engine.client.protocol import AdapterPart, Message
from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder, find_run
from workbench.storage.atomic import write_text
from workbench.storage.paths import Home

_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
_LARGEST_FILE = 64 * 2**20
_TITLE = 60


class _Kept(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Said(_Kept):
    """A reply: what answered, its words, and its figures in words.

    ``reasoning`` and ``calls`` are those of :class:`~workbench.engine.client.protocol.Message`.
    """

    who: str = ""
    text: str = ""
    figures: str = ""
    reasoning: str = ""
    calls: tuple[dict[str, Any], ...] = ()

    @property
    def message(self) -> Message:
        """The reply as it is sent with the next question."""
        return Message(
            role="assistant", content=self.text, reasoning_content=self.reasoning, tool_calls=list(self.calls)
        )

    @property
    def as_text(self) -> str:
        """The answer and the calls."""
        calls = [f"calls {call_text(call)}" for call in self.calls]
        return "\n\n".join([self.text, *calls] if self.text or not calls else calls)


class Turn(_Kept):
    """A question and its replies, one for each that was asked side by side.

    With the role ``tool`` the question is the result of a call, and ``name`` the function's. Such a turn has no replies
    if another result comes after it.
    """

    question: str
    replies: tuple[Said, ...] = ()
    role: Literal["user", "tool"] = "user"
    name: str = ""

    @property
    def message(self) -> Message:
        """The question, without its replies."""
        return Message(role=self.role, content=self.question, name=self.name)

    def reply_of(self, who: str) -> Said:
        """What this one said, else what the first one did."""
        return next((reply for reply in self.replies if reply.who == who), self.replies[0])


class Conversation(_Kept):
    """Turns under one system prompt. ``title`` is what the user called it, empty for its first question.

    ``tools`` are the JSON schemas of the functions that the model may call.
    """

    id: str = Field(pattern=_ID)
    title: str = ""
    system: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    changed: float = 0.0
    turns: tuple[Turn, ...] = ()

    @property
    def name(self) -> str:
        first = self.title or (" ".join(self.turns[0].question.split()) if self.turns else "empty")
        return first if len(first) <= _TITLE else first[: _TITLE - 1] + "…"

    def messages(self, who: str) -> list[Message]:
        """The conversation as one of those that answer had it."""
        said = [Message(role="system", content=self.system)] if self.system else []
        for turn in self.turns:
            if turn.replies or turn.role == "tool":
                said.append(turn.message)
            if turn.replies:
                said.append(turn.reply_of(who).message)
        return said

    @property
    def open_calls(self) -> tuple[dict[str, Any], ...]:
        """The calls of the last reply whose results are not there yet."""
        results = 0
        for turn in reversed(self.turns):
            if turn.replies:
                return turn.replies[0].calls[results:]
            results += turn.role == "tool"
        return ()

    def as_markdown(self) -> str:
        parts = [f"**System:** {self.system}"] if self.system else []
        for turn in self.turns:
            asks = f"Result of {turn.name}" if turn.role == "tool" else "You"
            parts.append(f"**{asks}:** {turn.question}")
            parts += [f"**{reply.who}:** {reply.as_text}" for reply in turn.replies]
        return "\n\n".join(parts)


def new_conversation() -> Conversation:
    """An empty one, with an id that sorts by time and that nobody else has."""
    return Conversation(id=f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}", changed=time.time())


def run_of(home: Home, target: str) -> RunFolder | None:
    """The run of a reply target: its id, prefix, folder, ``run@40``, or an adapter folder in it; None for others."""
    name, at, step = target.rpartition("@")
    try:
        return find_run(home, name if at and step.isdecimal() else target)
    except WorkbenchError as error:
        if error.kind != "run_not_found":
            raise
    folder = Path(target).expanduser().absolute()
    for parent in (folder.parent, folder.parent.parent):
        if (folder / "adapter_config.json").is_file() and (parent / "recipe.yaml").is_file():
            return RunFolder(parent)
    return None


@dataclass(frozen=True)
class Chats:
    """The conversations in one folder, each a JSON file (mode 0600, in a folder of mode 0700)."""

    folder: Path
    _large: int = field(default=_LARGEST_FILE, repr=False)

    @classmethod
    def of(cls, home: Home, target: str) -> "Chats":
        """Those with a run (its id, prefix, folder, or ``run@40``), an adapter folder, or a base model."""
        if (run := run_of(home, target)) is not None:
            return cls(run.path / "chats")
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", target).strip("-.")[-40:]
        return cls(home.root / "chats" / f"{slug}-{hashlib.sha256(target.encode()).hexdigest()[:8]}")

    def all(self) -> list[Conversation]:
        """Every one that can be read, the one changed last first."""
        try:
            files = [entry for entry in self.folder.iterdir() if entry.suffix == ".json" and _ID.fullmatch(entry.stem)]
        except OSError:
            return []
        found = [conversation for file in files if (conversation := self._read(file)) is not None]
        return sorted(found, key=lambda conversation: conversation.changed, reverse=True)

    def save(self, conversation: Conversation) -> Conversation:
        """Keep a conversation as it is now; another process sees the old file or the new one.

        Raises:
            WorkbenchError: it cannot be written.
        """
        kept = conversation.model_copy(update={"changed": time.time()})
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.folder.is_symlink():
                raise OSError(None, "the folder is a link to another one")
            self.folder.chmod(0o700)
            write_text(self._file(kept.id), json.dumps(kept.model_dump(), indent=1) + "\n", private=True)
        except OSError as error:
            raise WorkbenchError(
                f"The conversation cannot be saved in {self.folder}: {error.strerror or error}.",
                "Free some disk space, or make the folder writable. You can continue, but the "
                "conversation is lost when the terminal closes.",
                kind="disk",
            ) from None
        return kept

    def remove(self, conversation: Conversation) -> None:
        """Remove it for good.

        Raises:
            WorkbenchError: it cannot be removed.
        """
        try:
            self._file(conversation.id).unlink(missing_ok=True)
        except OSError as error:
            raise WorkbenchError(
                f"The conversation cannot be removed: {error.strerror}.", f"Check {self.folder}.", kind="disk"
            ) from None

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, file: Path) -> Conversation | None:
        try:
            if file.is_symlink() or file.stat().st_size > self._large:
                return None
            conversation = Conversation.model_validate_json(file.read_text(encoding="utf-8"))
        except (OSError, ValidationError, UnicodeDecodeError):
            return None
        # A file under another's name could be written over it.
        return conversation if conversation.id == file.stem else None


def parse_parts(text: str) -> list[AdapterPart]:
    """``run-01=0.7, run-02=0.3`` as the parts of a sum; a name alone counts once.

    Raises:
        WorkbenchError: it is none.
    """
    parts = []
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        name, sign, weight = piece.rpartition("=")
        try:
            parts.append(AdapterPart(target=name.strip(), weight=float(weight)) if sign else AdapterPart(target=piece))
        except ValueError:
            raise WorkbenchError(
                f"{piece} is not of the form adapter=weight.",
                "Write run-01=0.7, run-02=0.3; weights go from -2 to 2.",
                kind="bad_request",
            ) from None
    if not parts or any(not part.target for part in parts) or len(parts) > 16:
        raise WorkbenchError(
            "Give one to sixteen adapters.",
            "Write run-01=0.7, run-02=0.3; weights go from -2 to 2.",
            kind="bad_request",
        )
    return parts
