"""Records as they are fed, as text to be shown."""

from workbench.data.encode import encode_samples
from workbench.data.facts import Example
from workbench.data.sample import Sample
from workbench.data.sources import Records
from workbench.data.templates import Template
from workbench.recipe import DataSection


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
    """Records as they are fed, from the ``start``-th on; those whose text holds ``search``, in any case."""
    template = template.with_system(data.system)
    found: list[Example] = []
    for sample in encode_samples(records, template, data, start=start):
        if sample.problem:
            continue
        example = example_of(sample, template)
        if search.casefold() in example.text.casefold():
            found.append(example)
            if len(found) == count:
                break
    return found
