"""The names of columns by which formats of records are recognized, and the parts that each format has."""

from collections.abc import Collection

from workbench.recipe.sections.data_source import FormatKind

_SYSTEM = ("system", "system_prompt", "system_message")
_TOOLS = ("tools", "functions", "available_tools", "function_description")
_INPUT = ("input", "context", "contexts", "article", "passage", "paragraph")
# The reasoning of a response that has a column of its own.
_REASONING = (
    "reasoning_content", "reasoning", "thinking", "complex_cot", "deepseek_thinking_trajectory",
    "thinking_trajectories",
)  # fmt: skip
_REPLY = ("response", "output", "answer", "completion")

# The column names of the parts that a format needs, the likeliest first. A format of prompt and response may have
# several groups: names that go together, so that the response to a problem is its solution, and not its short answer.
GROUPS: dict[FormatKind, tuple[dict[str, tuple[str, ...]], ...]] = {
    "messages": ({"messages": ("messages", "conversation", "dialogue", "conversations", "chat", "data")},),
    "sharegpt": ({"messages": ("conversations", "conversation", "messages", "data")},),
    "instruction": ({"prompt": ("instruction",), "reply": _REPLY},),
    "prompt": ({"prompt": ("prompt",), "reply": ("completion", "response", "output", "answer", "generation")},),
    "question": (
        {
            "prompt": ("question", "query"),
            "reply": (
                "answer", "response", "output", "deepseek_attempt", "attempt", "long_answer", "answers", "solution",
            ),
        },
        {"prompt": ("problem",), "reply": ("generated_solution", "solution", *_REPLY)},
        {"prompt": ("inputs", "input"), "reply": ("targets", "target", *_REPLY, "content")},
        {"prompt": ("message_1",), "reply": ("message_2",)},
        {"prompt": ("user", "human"), "reply": ("assistant", "gpt", "bot")},
        {"prompt": ("dialogue", "document", "article", "content", "text"), "reply": ("summary", "highlights")},
    ),
    "segments": ({"segments": ("segments",)},),
    "text": ({"text": ("text", "content", "document", "quote", "raw_content")},),
}  # fmt: skip
# Columns of these names hold turns; those of other names in a format of turns may hold anything.
TURN_COLUMNS = ("messages", "conversation", "conversations")
EXTRAS: dict[str, tuple[str, ...]] = {
    "input": _INPUT, "system": _SYSTEM, "history": ("history",), "tools": _TOOLS, "reasoning": _REASONING,
    "chat_template_kwargs": ("chat_template_kwargs",),
}  # fmt: skip
# The parts that a format may have beside those that it needs.
OPTIONAL: dict[FormatKind, tuple[str, ...]] = {
    "messages": ("system", "tools", "chat_template_kwargs"),
    "sharegpt": ("system", "tools", "chat_template_kwargs"),
    "instruction": ("input", "system", "history", "tools", "reasoning", "chat_template_kwargs"),
    "prompt": ("input", "system", "history", "tools", "reasoning", "chat_template_kwargs"),
    "question": ("input", "system", "history", "tools", "reasoning", "chat_template_kwargs"),
    "segments": (),
    "text": (),
}
PARTS = (
    "prompt", "input", "reply", "reasoning", "system", "history", "messages", "tools", "segments", "text", "chosen",
    "rejected", "label",
)  # fmt: skip
# The parts of pairs beside the two responses.
PAIR_OPTIONAL = ("prompt", "input", "system", "history", "tools")


def folded_names(columns: Collection[str]) -> dict[str, str]:
    """Columns by their names without regard to case; of names that differ only in case the first counts."""
    return {column.strip().lower(): column for column in reversed(list(columns))}
