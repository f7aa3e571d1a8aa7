"""Turns tokenized records back into text to show: the formatted training text, with its trained and masked spans."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from workbench.data.facts import Example
from workbench.data.sample import Sample, Tokens
from workbench.data.sources import Records
from workbench.data.templates.template import Template
from workbench.data.tokens.samples import encode_items
from workbench.recipe.sections.data import DataSection


def example_of(sample: Sample, template: Template) -> Example:
    """A sample as text; a pair with its rejected side."""
    chosen, *others = (_example_of_side(sample, side, template) for side in sample.sides)
    return replace(chosen, rejected=others[0]) if others else chosen


def _example_of_side(sample: Sample, side: Tokens, template: Template) -> Example:
    text, spans = _decoded(side, template)
    unused = tuple(field.path for field in sample.unused)
    tokens = len(side.input_ids)
    cut = side.length - tokens
    return Example(
        sample.index,
        sample.where,
        text,
        spans,
        tokens,
        cut,
        sample.held_out,
        unused,
        good=sample.good,
        label=sample.label,
    )


def _decoded(side: Tokens, template: Template) -> tuple[str, tuple[tuple[int, int, bool], ...]]:
    """Decode a text's tokens, special tokens included, and mark the spans of text that are trained on."""
    spans: list[tuple[int, int, bool]] = []
    text = ""
    start = 0
    ids, trained = side.input_ids, side.trained
    for end in range(1, len(ids) + 1):
        if end < len(ids) and trained[end] == trained[start]:
            continue
        # Decoded from the first token on, as some tokenizers drop the space before a text's first word.
        longer = template.tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if not longer.startswith(text):
            span = template.tokenizer.decode(
                ids[start:end], skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            longer = text + span
        spans.append((len(text), len(longer), trained[start]))
        text, start = longer, end
    return text, tuple(spans)


def find_examples(
    records: Records,
    template: Template,
    data: DataSection,
    start: int = 0,
    count: int = 10,
    search: str = "",
    *,
    invalid: bool = False,
) -> list[Example]:
    """Formatted training text of up to ``count`` records from ``start`` on that contain ``search``, ignoring case.

    Only a record's own text is searched, not what the template adds. Of a document, the chunks with ``search`` count.

    Args:
        invalid: include records that are not used for training, each with its problem, whatever is searched.
    """
    template = template.with_system(data.system)
    return list(islice(_examples(records, template, data, start, search, invalid), count))


def _examples(
    records: Records, template: Template, data: DataSection, start: int, search: str, invalid: bool
) -> Iterator[Example]:
    # Each match is tokenized at once and on its own: the next one may be a million records away.
    for index, item in enumerate(islice(records.items(), start, None), start=start):
        if not item.contains(search) and not (invalid and item.content is None):
            continue
        for sample in encode_items([(index, item)], records, template, data):
            if sample.problem:
                if invalid:
                    yield Example(index, sample.where, "", (), 0, 0, sample.held_out, problem=sample.problem)
                continue
            example = example_of(sample, template)
            if not records.documents or search.casefold() in example.text.casefold():
                yield example
