"""Names the fields of a record that are not fed to the model.

The rule of the project: whatever a record holds is used, or named. Columns are compared here, once, with those that the
record's format uses; keys of turns are compared by the template, which alone knows what it writes
(:meth:`workbench.data.templates.template.Template.cut`).
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from workbench.data.records.conversation import Conversation
from workbench.data.records.reasoning import REASONING_KEYS
from workbench.data.records.values import is_empty

# Names under which datasets have parts of a conversation: a field of such a name is asked about before a run.
KNOWN_NAMES = frozenset({
    "system", "system_prompt", "system_message", "developer", "custom_instructions", "instruction", "prompt",
    "question", "query", "problem", "input", "inputs", "context", "passage", "history", "xml_tools", "python_tools",
    "tools", "functions", "tool_calls", "function_call", "reasoning", "reasoning_content", "thinking",
    "thought", "think", "rationale", "explanation", "analysis", "complex_cot", "documents", "response", "output",
    "answer", "answers", "choices", "options", "completion", "generation", "solution", "target", "targets", "summary",
    "messages", "conversation", "conversations", "chosen", "rejected", "image", "images", "video", "videos", "audio",
    "audios", "weight", "loss", "train", "training", "trainable",
    "training_detail", "train_detail", "completion_mask", "assistant_masks", "critique", "revision", "corrected",
    "loss_mask", "mask", "masked", "loss_weight", "loss_scale", "train_on_turn", "mask_history", "contexts", "passages",
    "evidence", "knowledge", "background", "result", "results", "cot", "chain_of_thought", "scratchpad",
    "reasoning_details", "tool_responses",
})  # fmt: skip
# A value of this many words reads like a part of a conversation, and not like a label or an id.
_TEXT_WORDS = 5


@dataclass(frozen=True, slots=True)
class Unused:
    """A field of one record that is not fed.

    ``path`` is a column (``context``), a member of one (``answers.answer_start``) or a key of turns
    (``messages[].name``). ``asks``: it looks like a part of the
    conversation, by its name or its text.
    """

    path: str
    asks: bool


@dataclass(frozen=True)
class UnusedField:
    """A field that is not fed, over a dataset: the records that fill it, and whether to ask before a run."""

    path: str
    records: int
    asks: bool


def unused_columns(record: Mapping[str, object], used: Set[str], content: Conversation | str) -> tuple[Unused, ...]:
    """The filled columns of a record that its format does not use."""
    if record.keys() <= used:
        return ()
    return tuple(
        Unused(str(column) or "a column without a name", _asks(str(column), value, content))
        for column, value in record.items()
        if column not in used and not is_empty(value)
    )


def unused_value(path: str, value: object, content: Conversation | str) -> Unused:
    """What a used column holds beside what is used of it. No value: it is used in another place."""
    return Unused(path, value is not None and _asks(path.rpartition(".")[2], value, content))


def unwritten_field(name: str, value: object, column: str = "") -> Unused:
    """A key of turns that the template does not write, or ``tools``; named by the column that it is from, if any."""
    path = column or (name if name == "tools" else f"messages[].{name}")
    return Unused(path, _asks(name.rpartition(".")[2], value, ""))


def _asks(name: str, value: object, content: Conversation | str) -> bool:
    if content and _repeats(value, content):
        return False
    if name.strip().lower() in KNOWN_NAMES:
        return True
    return isinstance(value, str) and len(value.split(None, _TEXT_WORDS)) >= _TEXT_WORDS and " " in value


def _repeats(value: object, content: Conversation | str) -> bool:
    """Whether a value only repeats what is used, such as Alpaca's ``text`` column: prompt and response in one."""
    if isinstance(content, str):
        texts, parts = [content], [content]
    else:
        texts = [text for text in content.texts if text]
        parts = [*texts, *(str(turn[key]) for turn in content.messages for key in REASONING_KEYS if key in turn)]
    if isinstance(value, str):
        asked = [content] if isinstance(content, str) else _questions(content)
        whole = bool(texts) and all(text in value for text in (*asked, texts[-1]))
        return whole or any(value.strip() in part for part in parts)
    repeated = _texts_of(value)
    return bool(repeated) and all(any(text.strip() in part for part in parts) for text in repeated)


def _questions(conversation: Conversation) -> list[str]:
    """The text of each question; of an instruction with an input, the instruction."""
    return [str(turn.get("instruction", turn["content"])) for turn in conversation.messages if turn["role"] == "user"]


def _texts_of(value: object) -> list[str]:
    """The texts of a list of turns, or of a list of texts."""
    if not isinstance(value, list):
        return []
    texts = [one.get("content", one.get("value")) if isinstance(one, dict) else one for one in value]
    return [text for text in texts if isinstance(text, str)] if all(isinstance(text, str) for text in texts) else []
