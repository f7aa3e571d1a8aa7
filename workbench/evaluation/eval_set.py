"""Builds the set that models are evaluated on: held-out records as labeled tokens, and prompts to reply to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from workbench.data.records.conversation import BadRecord, Conversation, Message, Segments, Unpaired, chosen_side
from workbench.data.sample import Sample
from workbench.data.sources import Item, Records, load_records
from workbench.data.templates.template import Template
from workbench.data.tokens.samples import encode_items
from workbench.errors import WorkbenchError
from workbench.objectives.objective import RecordKind
from workbench.progress import Progress
from workbench.recipe.data_sources import source_text
from workbench.recipe.sections.data import DataSection
from workbench.storage.paths import Home

FIXED_PROMPTS = (
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Write a Python function that reverses a list.",
    "Write a short poem about the sea.",
)
"""The default prompts: they show whether a fine-tuned model still has its general abilities."""

_BATCH_RECORDS = 64
# Plain text is continued from its first tokens: this many, or a quarter of a shorter text.
_MAX_PREFIX_TOKENS = 64


@dataclass(frozen=True)
class Question:
    """A prompt to reply to, as tokens and as text, with the record's own reply as ``reference`` if it has one."""

    ids: list[int]
    text: str
    reference: str | None = None
    where: str = ""
    fixed: bool = False


@dataclass
class EvalSet:
    """The records and prompts that all models are evaluated on.

    Attributes:
        samples: records truncated as in training, with labeled tokens; samples of one ``index`` are one document.
        has_more: whether the source has records that were not taken. skipped: how many records cannot be used.
    """

    samples: list[Sample] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    has_more: bool = False
    skipped: int = 0

    @property
    def rows(self) -> list[dict[str, list[int]]]:
        """The token ids and labels of the samples; the rejected responses of pairs follow the chosen ones."""
        chosen = [{"input_ids": one.input_ids, "labels": one.labels} for one in self.samples]
        rejected = [one.rejected for one in self.samples if one.rejected is not None]
        return chosen + [{"input_ids": one.input_ids, "labels": one.labels} for one in rejected]


def build_eval_set(
    home: Home,
    data: DataSection,
    template: Template,
    *,
    is_run_data: bool,
    records: int,
    replies: int,
    prompts: list[str],
    report: Callable[[Progress], None],
    cancelled: Callable[[], bool],
    kind: RecordKind | None = None,
) -> EvalSet:
    """Take the first records of a source, and prompts from the first of them. Of pairs, the chosen responses
    count, of unpaired responses the good ones.

    Args:
        is_run_data: whether the source is the run's training data, of which only the held-out part may be used. Of
            another source, the held-out part is used if it has one, else all of it.
        records: maximum number of records; 0 for all. replies: how many of them are also replied to.
        prompts: additional prompts to reply to.
        kind: as what the records are read; None for what they look like.

    Raises:
        WorkbenchError: the source cannot be read or has no usable record; kind ``cancelled`` if cancelled.
    """
    source = load_records(data, home, kind=kind)
    eval_set = EvalSet()
    for prompt in prompts:
        ids = template.encode_prompt([{"role": "user", "content": prompt}])
        eval_set.questions.append(Question(ids, prompt, fixed=True))
    items = _usable_items(source, is_run_data, report, cancelled)
    while batch := list(islice(items, _BATCH_RECORDS)):
        missing = replies - (len(eval_set.questions) - len(prompts))
        eval_set.questions += islice(_questions(batch, template), max(missing, 0))
        for sample in encode_items(batch, source, template, data):
            if not sample.trained_tokens:
                eval_set.skipped += 1
            elif records and len(eval_set.samples) == records:
                eval_set.has_more = True
                return eval_set
            else:
                eval_set.samples.append(sample)
    if not eval_set.samples:
        raise _no_usable_record(data, is_run_data, eval_set.skipped)
    return eval_set


def _usable_items(
    source: Records, is_run_data: bool, report: Callable[[Progress], None], cancelled: Callable[[], bool]
) -> Iterator[tuple[int, Item]]:
    only_held_out = is_run_data or any(part.reading.eval_rows for part in source.sources)
    for index, item in enumerate(source.items()):
        if index % _BATCH_RECORDS == 0:
            if cancelled():
                raise WorkbenchError("The evaluation was cancelled.", kind="cancelled")
            report(Progress(phase="reading", fraction=min(item.fraction, 1.0), detail=f"{index:,} records"))
        is_bad = isinstance(item.content, Unpaired) and not item.content.good
        if (item.held_out or not only_held_out) and not is_bad:
            yield index, item


def _questions(items: list[tuple[int, Item]], template: Template) -> Iterator[Question]:
    for _, item in items:
        content = item.content and chosen_side(item.content)
        if isinstance(content, str):
            ids = template.encode_text(content).input_ids
            prefix = ids[: min(max(len(ids) // 4, 1), _MAX_PREFIX_TOKENS)]
            yield Question(prefix, template.tokenizer.decode(prefix, skip_special_tokens=True), where=item.where)
        elif isinstance(content, Segments):
            if question := _question_of_segments(content, template, item.where):
                yield question
        elif content and (question := _question(content, template, item.where)):
            yield question


def _question(conversation: Conversation, template: Template, where: str) -> Question | None:
    """Ask for the last reply of a conversation; the turns before it are the prompt."""
    try:
        # Raises for a record that training would skip, such as one without a response.
        template.cut(conversation)
        last = conversation.responses[-1]
        before = conversation.messages[:last]
        ids = template.encode_prompt(before, conversation.tools)
    except (BadRecord, WorkbenchError):
        return None
    return Question(ids, _as_text(before), conversation.messages[last]["content"], where)


def _question_of_segments(content: Segments, template: Template, where: str) -> Question | None:
    """Ask for the last trained segment; those before it are the prompt."""
    last = content.last_trained
    if last < 1:
        return None
    prompt = Segments(content.segments[:last])
    ids = template.encode_pieces([template.segment_pieces(prompt)])[0].input_ids
    return Question(ids, prompt.text, template.without_end(content.segments[last].text), where)


def _as_text(turns: list[Message]) -> str:
    """A single question unchanged, several turns with their roles."""
    if [turn["role"] for turn in turns] == ["user"]:
        return str(turns[0]["content"])
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _no_usable_record(data: DataSection, is_run_data: bool, skipped: int) -> WorkbenchError:
    source = source_text(data.source)
    if is_run_data and not skipped:
        return WorkbenchError(
            f"The run has no held-out records of {source} (data.eval_fraction is {data.eval_fraction:g}).",
            "Give records that it was not trained on with --data.",
            kind="nothing_held_out",
        )
    return WorkbenchError(
        f"{source} has no record to evaluate on; {skipped} are invalid or lost their response to truncation.",
        "Check it with `loraworkbench data`, or raise data.max_length.",
        kind="data_no_tokens",
    )
