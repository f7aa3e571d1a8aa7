"""Recognizes preference data: pairs of a chosen and a rejected response, and kinds that no objective trains on.

Pairs and labeled responses are read for dpo, kto and the like. For supervised training, and for the other kinds, an
error says what to set or to write instead.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from workbench.data.records.conversation import BadRecord
from workbench.data.records.known_columns import folded_names
from workbench.data.records.layouts import as_turns, is_turns
from workbench.data.records.transcripts import read_transcript
from workbench.data.records.turns import ROLES
from workbench.errors import WorkbenchError

Samples = Sequence[Mapping[str, object]]

_CHOSEN = ("chosen", "chosen_response", "response_j", "preferred_output")
_REJECTED = ("rejected", "rejected_response", "rejected_messages", "response_k", "non_preferred_output")
_PROMPTS = (
    "prompt", "question", "instruction", "query", "input", "messages", "conversations", "conversation", "context",
    "history",
)  # fmt: skip
_MESSAGES = ("messages", "conversations", "conversation")
# Two responses side by side, and the columns that say which is the better one.
_BOTH = (
    ("response_0", "response_1"), ("response_1", "response_2"), ("response1", "response2"),
    ("response_a", "response_b"), ("answer_0", "answer_1"), ("human_ref_a", "human_ref_b"),
)  # fmt: skip
_BETTER = ("better_response_id", "overall_preference", "preference", "winner", "labels", "label", "score_ratio")
# Lists of responses to one prompt, and the keys of a response's text in them.
_LISTS = ("answers", "completions", "responses")
_TEXTS = ("answer", "response", "text", "completion", "content")
_RATINGS = ("rank", "score", "rating", "overall_score", "annotations", "model")
_LABELS = ("label", "kto_tag")

_ONE_RESPONSE = "Supervised training uses one response per prompt."


def pair_columns(columns: Collection[str], samples: Samples) -> dict[str, str] | None:
    """The column of each part of pairs of a chosen and a rejected response, as for DPO; None if there are no pairs.

    The parts: ``chosen`` and ``rejected``; ``prompt`` where these two do not begin with it; and what else records have.
    """
    folded = folded_names(columns)
    rejected = _first(folded, _REJECTED)
    chosen = _first(folded, _CHOSEN) or (_first(folded, _MESSAGES) if rejected else None)
    if rejected is None or chosen is None:
        return None
    prompt = _first(folded, [name for name in _PROMPTS if folded.get(name) != chosen])
    values = [record[chosen] for record in samples if record.get(chosen)]
    begin_with_prompt = any(_holds_prompt(value) for value in values)
    parts = {"chosen": chosen, "rejected": rejected}
    if prompt is None and not begin_with_prompt and not any(map(is_turns, values)):
        return parts
    beside = {"system": ("system", "system_prompt"), "tools": ("tools",)}
    if not begin_with_prompt and prompt is not None:
        parts = {"prompt": prompt, **parts}
        beside |= {"input": ("input",), "history": ("history",)}
    for part, names in beside.items():
        column = _first(folded, names)
        if column is not None and column != prompt:
            parts[part] = column
    return parts


def supervised_columns(pair: Mapping[str, str], samples: Samples, side: str = "chosen") -> dict[str, str]:
    """The ``data.columns`` that reads the responses of one side of pairs, with all that belongs to their prompts."""
    column = pair[side]
    others = {part: name for part, name in pair.items() if part not in ("chosen", "rejected")}
    if "prompt" in pair:
        return {"prompt": others.pop("prompt"), "reply": column, **others}
    if any(is_turns(record.get(column)) or _holds_prompt(record.get(column)) for record in samples):
        return {"messages": column, **others}
    return {"text": column}


def unpaired_columns(columns: Collection[str], samples: Samples) -> dict[str, str] | None:
    """The column of each part of responses that a label calls good or bad, as for KTO; None if there are none.

    The parts: ``label``, and ``prompt`` and ``reply``, or ``messages`` where the response follows its prompt in them.
    """
    folded = folded_names(columns)
    label = _first(folded, _LABELS)
    if label is None or not _are_good_bad_labels([record.get(label) for record in samples]):
        return None
    if (turns := _first(folded, _MESSAGES)) is not None:
        parts = {"messages": turns}
    elif (reply := _first(folded, ("completion", "response", "output", "answer"))) is None:
        return None
    elif (prompt := _first(folded, ("prompt", "instruction", "question", "query", "input"))) is not None:
        parts = {"prompt": prompt, "reply": reply}
    elif any(_holds_prompt(record.get(reply)) for record in samples):
        parts = {"messages": reply}  # the response's column holds the whole conversation
    else:
        return None
    return {**parts, "label": label}


def cure_for_unpaired(columns: Mapping[str, str]) -> str:
    """What to set to train on responses with labels: another objective, or their columns.

    Args:
        columns: the column of each part.
    """
    prompt = columns.get("prompt", "").strip().lower()
    way = (
        f"set data.format to {prompt}"
        if prompt in ("prompt", "instruction", "question")
        else f"set data.columns={{{', '.join(f'{part}: {name}' for part, name in columns.items() if part != 'label')}}}"
    )
    return (
        f"To learn from both kinds, set objective.kind to kto. Supervised training would learn the bad ones too. Keep "
        f"the records with {columns['label']} true, or {way} to train on all of them."
    )


def cure_for_pairs(chosen: Mapping[str, str]) -> str:
    """What to set to train on pairs: another objective, or the columns of their chosen side.

    Args:
        chosen: the columns of their chosen side.
    """
    columns = ", ".join(f"{part}: {column}" for part, column in chosen.items())
    return (
        f"To train on both responses, set objective.kind to dpo. {_ONE_RESPONSE} To train on the chosen ones, set "
        f"data.columns={{{columns}}}."
    )


def refuse_preferences(columns: Collection[str], samples: Samples, origin: str) -> None:
    """Refuse records that hold responses to compare in a form that no objective takes.

    Raises:
        WorkbenchError: they do; says which kind of preference data they are, and what can be done with them.
    """
    folded = folded_names(columns)
    found = _both(folded) or _ranked(folded, samples) or _steps(folded, samples)
    if found is not None:
        what, cure = found
        raise WorkbenchError(f"{origin} holds preference data: {what}.", cure, kind="data_preference")


def _holds_prompt(value: object) -> bool:
    """Whether a chosen response is a conversation that begins with its prompt."""
    if isinstance(value, str) and read_transcript(value):
        return True
    if not is_turns(value):
        return False
    try:
        first = as_turns(value, "")[0]
    except BadRecord:
        return False
    return ROLES.get(str(first.get("role", first.get("from"))).lower()) != "assistant"


def _are_good_bad_labels(values: Sequence[object]) -> bool:
    """Whether labels are true and false, also as text, which a table has; numbers only if there are both 0 and 1."""
    filled = {str(value).strip().lower() for value in values if value is not None}
    return bool(filled) and (filled <= {"true", "false"} or filled == {"0", "1"})


def _both(folded: Mapping[str, str]) -> tuple[str, str] | None:
    """Two responses to each prompt, and another column that says which is the better one."""
    pair = next((names for names in _BOTH if all(name in folded for name in names)), None)
    if pair is None:
        return None
    first, second = (folded[name] for name in pair)
    better = _first(folded, _BETTER)
    by = f"; {better} names the better one" if better is not None else ""
    prompt = _first(folded, _PROMPTS)
    way = f", or set data.columns={{prompt: {prompt}, reply: {first}}} to train on {first} of each record"
    return (
        f"two responses to each prompt, {first} and {second}{by}",
        f"Write the better one of each record to a column chosen and the other to rejected, for objective.kind dpo"
        f"{way if prompt else ''}.",
    )


def _ranked(folded: Mapping[str, str], samples: Samples) -> tuple[str, str] | None:
    """A list of rated responses to each prompt."""
    column = _first(folded, _LISTS)
    if column is None or not any(_is_list_of_responses(record.get(column)) for record in samples):
        return None
    return (
        f"several rated responses to each prompt, in {column}",
        f"{_ONE_RESPONSE} Write the best one of each record to a column response, beside its prompt.",
    )


def _has_any(one: Mapping[str, object], keys: Iterable[str]) -> bool:
    return any(key in one for key in keys)


def _is_list_of_responses(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(one, dict) and _has_any(one, _TEXTS) and _has_any(one, _RATINGS) for one in value)
    )


def _steps(folded: Mapping[str, str], samples: Samples) -> tuple[str, str] | None:
    """Steps of a response, each labeled as right or wrong, as TRL's PRMTrainer takes them."""
    if not {"prompt", "completions", "labels"} <= folded.keys():
        return None
    if not any(isinstance(record.get(folded["labels"]), list) for record in samples):
        return None
    return (
        "steps of a response, each labeled as right or wrong",
        f"{_ONE_RESPONSE} Join the steps of each right response to a column completion, beside its prompt.",
    )


def _first(folded: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((folded[name] for name in names if name in folded), None)
