"""Names layouts of records that are known, but not trained on as they are, and says what to do with them."""

from collections.abc import Collection
from typing import NamedTuple

from workbench.errors import WorkbenchError


class _Layout(NamedTuple):
    """Columns that show a layout (all of them), what it is, and what to do."""

    columns: tuple[str, ...]
    what: str
    cure: str


_LAYOUTS = (
    _Layout(
        ("input_ids",),
        "records that are tokenized already",
        "Give the records from before: they are tokenized here, and the tokens are kept for the next run.",
    ),
    _Layout(
        ("contents",),
        "conversations as Gemini has them, in contents and parts",
        "Write contents as messages: each turn an object with role and content.",
    ),
    _Layout(
        ("mapping",),
        "exported ChatGPT conversations, as trees of messages",
        "Write one path of each tree as messages: each turn an object with role and content.",
    ),
    _Layout(
        ("translation",),
        "translations, with a text in each language",
        "Write the two languages to columns of their own, such as prompt and completion.",
    ),
)
_PROMPTS = ("prompt", "instruction", "question", "query")


def refuse_other_layouts(columns: Collection[str], origin: str) -> None:
    """Refuse records of a layout that is known but not trained on.

    Raises:
        WorkbenchError: they are.
    """
    names = {column.strip().lower(): column for column in columns}
    for layout in _LAYOUTS:
        if names.keys() >= set(layout.columns):
            raise WorkbenchError(f"{origin} holds {layout.what}.", layout.cure, kind="data_format")
    if names.keys() <= {*_PROMPTS, "id"} and (prompt := next((names[name] for name in _PROMPTS if name in names), "")):
        raise WorkbenchError(
            f"{origin} holds prompts without responses, in {prompt}.",
            "Add a column with the responses, such as completion, or set data.columns={text: "
            f"{prompt}}} to train on the prompts as plain text.",
            kind="data_format",
        )
