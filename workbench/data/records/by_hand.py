"""The format of records whose columns the recipe maps to parts by hand."""

from collections.abc import Collection, Mapping, Sequence

from workbench.data.records.formats import (
    AnyFormat,
    PairFormat,
    RecordFormat,
    names_text,
    pair_format,
    parts_text,
    turn_layout,
    unpaired_format,
)
from workbench.data.records.known_columns import GROUPS, OPTIONAL, PAIR_OPTIONAL, PARTS
from workbench.errors import WorkbenchError
from workbench.recipe.sections.data_source import FormatKind


def by_hand_format(
    columns: Collection[str], samples: Sequence[Mapping[str, object]], by_hand: Mapping[str, str], origin: str
) -> AnyFormat:
    """The format that ``data.columns`` describes.

    Raises:
        WorkbenchError: it names an unknown part or column, or parts that do not go together.
    """
    for part, column in by_hand.items():
        if part not in PARTS:
            raise WorkbenchError(
                f"data.columns has an unknown part {part!r}.",
                f"Parts are {', '.join(PARTS)}.",
                kind="data_format",
            )
        if column not in columns:
            raise WorkbenchError(
                f"{origin} has no column {column!r} (data.columns: {part}).",
                f"Its columns are {names_text(columns)}.",
                kind="data_format",
            )
    if "chosen" in by_hand or "rejected" in by_hand:
        return _pair_by_hand(samples, by_hand)
    if "label" in by_hand:
        response = by_hand_format(
            columns, samples, {part: name for part, name in by_hand.items() if part != "label"}, origin
        )
        assert isinstance(response, RecordFormat)
        if response.shape in ("text", "segments"):
            raise WorkbenchError(
                f"data.columns sets label beside {response.shape}: it has no response that the label could be about.",
                "Set prompt and reply, or messages, beside label; or objective.kind to classification, which learns "
                "the label of a text.",
                kind="data_format",
            )
        return unpaired_format(by_hand, samples, f"columns set in the recipe; {parts_text(by_hand)}")
    kind: FormatKind
    if "messages" in by_hand:
        layout = turn_layout(samples, by_hand["messages"])
        kind = layout[0] if layout is not None else "messages"
    elif "text" in by_hand:
        kind = "text"
    elif "segments" in by_hand:
        kind = "segments"
    elif "prompt" in by_hand and "reply" in by_hand:
        kind = "prompt"
    else:
        raise WorkbenchError(
            "data.columns sets neither prompt and reply, nor messages, segments or text.",
            "Set one of these, such as data.columns={prompt: title, reply: body}.",
            kind="data_format",
        )
    if others := [part for part in by_hand if part not in (*GROUPS[kind][0], *OPTIONAL[kind])]:
        main = " and ".join(GROUPS[kind][0])
        optional = [part for part in OPTIONAL[kind] if part in PARTS]
        raise WorkbenchError(
            f"data.columns sets {', '.join(others)} beside {main}: such a record has no place for it.",
            f"Records with {main} also take {', '.join(optional) or 'no other part'}. Leave out the others.",
            kind="data_format",
        )
    return RecordFormat(kind, dict(by_hand), f"columns set in the recipe; {parts_text(by_hand)}")


def _pair_by_hand(samples: Sequence[Mapping[str, object]], by_hand: Mapping[str, str]) -> PairFormat:
    others = [part for part in by_hand if part not in (*PAIR_OPTIONAL, "chosen", "rejected")]
    if others or not {"chosen", "rejected"} <= by_hand.keys():
        lacking = " and ".join(part for part in ("chosen", "rejected") if part not in by_hand)
        raise WorkbenchError(
            f"data.columns sets {', '.join(others)} beside chosen and rejected: a pair has no place for it."
            if others
            else f"data.columns lacks {lacking}: a pair has a chosen and a rejected response.",
            f"Pairs take chosen, rejected, {', '.join(PAIR_OPTIONAL)}.",
            kind="data_format",
        )
    return pair_format(by_hand, samples, f"columns set in the recipe; {parts_text(by_hand)}")
