"""Records as they are fed, as text to be shown."""

from collections.abc import Iterator
from itertools import islice

from workbench.data.encode import encode_items
from workbench.data.facts import Example
from workbench.data.sample import Sample
from workbench.data.sources import Records
from workbench.data.templates.template import Template
from workbench.recipe.schema import DataSection


def example_of(sample: Sample, template: Template) -> Example:
    """A sample as text: its tokens decoded, special ones visible, with spans of trained and masked characters."""
    spans: list[tuple[int, int, bool]] = []
    text = ""
    start = 0
    ids, trained = sample.input_ids, sample.trained
    for end in range(1, len(ids) + 1):
        if end < len(ids) and trained[end] == trained[start]:
            continue
        # Decoded from the very beginning, as some tokenizers drop the space before a text's first word.
        upto = template.tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if not upto.startswith(text):
            run = template.tokenizer.decode(
                ids[start:end], skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            upto = text + run
        spans.append((len(text), len(upto), trained[start]))
        text, start = upto, end
    return Example(sample.index, sample.where, text, tuple(spans), len(ids), sample.length - len(ids), sample.held_out)


def find_examples(
    records: Records, template: Template, data: DataSection, start: int = 0, count: int = 10, search: str = ""
) -> list[Example]:
    """Records as they are fed, from the ``start``-th on; those whose own text holds ``search``, in any case.

    What the template puts around it is not searched; of a long document the chunks that hold ``search`` are given.
    """
    template = template.with_system(data.system)
    return list(islice(_examples(records, template, data, start, search), count))


def _examples(records: Records, template: Template, data: DataSection, start: int, search: str) -> Iterator[Example]:
    # Only what is found is tokenised, and at once: the next match may lie a million records further on.
    for index, item in enumerate(islice(records.items(), start, None), start=start):
        if not item.holds(search):
            continue
        for sample in encode_items([(index, item)], records, template, data):
            if sample.problem:
                continue
            example = example_of(sample, template)
            if not records.documents or search.casefold() in example.text.casefold():
                yield example
