"""The most used public datasets are recognized, trained on what is right, and nothing of a record is left unnamed."""

import json
import re
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import pytest

from tests.data.popular_sets import PAIR, SETS, Layout
from tests.data.test_records import tokenizer_of_bytes
from workbench.data.sources import load_records
from workbench.data.templates.template import Template
from workbench.data.tokens.samples import encode_samples
from workbench.errors import WorkbenchError
from workbench.recipe.sections.data import DataSection

LAYOUTS = list(chain.from_iterable(SETS.values()))
DOCS = Path(__file__).parents[2] / "docs" / "data.md"
START, END = "<!-- popular sets -->\n", "<!-- end of popular sets -->\n"


def written(layout: Layout, folder: Path) -> DataSection:
    """The layout's record twice, in a file of the kind that the set has."""
    path = folder / f"set.{layout.file}"
    rows = _twice(layout)
    if layout.file == "parquet":
        import pyarrow as pa
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataSection(source=str(path), eval_fraction=0.0, template=layout.template, max_length=100_000)


def _twice(layout: Layout) -> list[dict[str, Any]]:
    rows = [layout.record, *layout.more]
    return [*rows, *({**row, "message_tree_id": "2"} for row in rows)] if layout.more else rows * 2


def trained_text(data: DataSection, tokenizer: Any) -> tuple[list[str], list[dict[str, bool]]]:
    """Each record's tokens as text, trained stretches between ⟦ and ⟧, and its unused fields."""
    texts, unused = [], []
    template = Template.for_model(tokenizer, data.template)
    for sample in encode_samples(load_records(data), template, data):
        assert sample.problem == ""
        text = ""
        for trained, run in groupby(zip(sample.trained, sample.input_ids, strict=True), key=lambda pair: pair[0]):
            part = tokenizer.decode([token for _, token in run], clean_up_tokenization_spaces=False)
            text += f"⟦{part}⟧" if trained else part
        texts.append(text)
        unused.append({field.path: field.asks for field in sample.unused})
    return texts, unused


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of_bytes()


@pytest.mark.parametrize("layout", LAYOUTS, ids=[layout.name for layout in LAYOUTS])
def test_a_set_is_trained_as_it_should_be(layout: Layout, tokenizer: Any, tmp_path: Path) -> None:
    data = written(layout, tmp_path)
    if layout.cure:
        with pytest.raises(WorkbenchError) as refused:
            load_records(data)
        assert layout.text in refused.value.message
        assert layout.cure in refused.value.cure
        assert refused.value.kind == "data_preference"
        return
    assert load_records(data).format == layout.kind
    assert trained_text(data, tokenizer) == ([layout.text] * 2, [layout.unused] * 2)


CHOOSABLE = [layout for layout in LAYOUTS if "data.columns={" in layout.cure]


@pytest.mark.parametrize("layout", CHOOSABLE, ids=[layout.name for layout in CHOOSABLE])
def test_what_a_refusal_advises_works(layout: Layout, tokenizer: Any, tmp_path: Path) -> None:
    """Set as the refusal says, the chosen response is trained after its prompt, and the rejected one is named."""
    setting = re.search(r"data\.columns=\{(.*?)\}", layout.cure)
    assert setting
    columns = dict(part.split(": ") for part in setting[1].split(", "))
    data = written(layout, tmp_path).model_copy(update={"columns": columns})
    (text, _), (unused, _) = trained_text(data, tokenizer)
    system = "<|im_start|>system\nBe brief.<|im_end|>\n" if layout.record.get("system") else ""
    assert text == system + PAIR
    assert {*columns.values(), *(path.partition(".")[0] for path in unused)} >= {
        column for column, value in layout.record.items() if value not in ("", None)
    }


def test_transcripts_in_a_text_column_can_be_trained_on_their_responses(tokenizer: Any, tmp_path: Path) -> None:
    layout = next(layout for layout in LAYOUTS if layout.name == "timdettmers/openassistant-guanaco")
    data = written(layout, tmp_path)
    assert "data.columns={messages: text} trains on the responses only" in load_records(data).reason
    data = data.model_copy(update={"columns": {"messages": "text"}})
    assert trained_text(data, tokenizer)[0] == [PAIR] * 2


def test_the_list_is_in_the_documentation() -> None:
    """``python -m tests.data.test_popular_sets`` writes it again."""
    text = DOCS.read_text(encoding="utf-8")
    assert text.partition(START)[2].partition(END)[0] == listed()
    assert sum(1 + len(layout.same) for layout in LAYOUTS) >= 50


def listed() -> str:
    """The tables of the documentation."""
    parts = []
    for title, layouts in SETS.items():
        rows = [_row(layout) for layout in layouts]
        parts.append(
            f"\n### {title}\n| dataset | layout | recognized as | unused | known from |\n|---|---|---|---|---|\n"
            + "".join(f"| {' | '.join(row)} |\n" for row in rows)
        )
    return "".join(parts)


def _row(layout: Layout) -> tuple[str, ...]:
    names = "<br>".join(f"`{name}`" for name in (layout.name, *layout.same))
    where = f"<br>{layout.where}" if layout.where else ""
    columns = ", ".join(f"`{column}`{_members(value)}" for column, value in layout.record.items())
    recognized = layout.kind if not layout.cure else f"{layout.kind}: {layout.text}"
    unused = ", ".join(f"`{path}`{' (asked)' if asks else ''}" for path, asks in layout.unused.items())
    way = re.search(r"data\.\w+(=\{.*?\}| to \w+)", layout.cure)
    if layout.cure:
        unused = f"trained with `{way[0].replace(' to ', '=')}`" if way else "not trained as it is"
    return names + where, columns, recognized, unused or "nothing", layout.known


def _members(value: Any) -> str:
    """The keys of a column's turns or of its object."""
    first = value[0] if isinstance(value, list) and value else value
    return f" ({', '.join(first)})" if isinstance(first, dict) else ""


if __name__ == "__main__":
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(START)
    DOCS.write_text(before + START + listed() + END + rest.partition(END)[2], encoding="utf-8")
