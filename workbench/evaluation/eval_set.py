"""What models are judged on: held-out records as labelled tokens, and prompts to be answered."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from workbench.data.encode import encode_items
from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.sample import Sample
from workbench.data.sources import Item, Records, load_records
from workbench.data.templates.template import Template
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.recipe.schema import DataSection
from workbench.storage.paths import Home

FIXED_PROMPTS = (
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Write a Python function that reverses a list.",
    "Write a short poem about the sea.",
)
"""Asked where nothing else is: they show what a model that learnt one thing has kept of all others."""

_AT_ONCE = 64
# Of a text without a question and a reply, this many tokens are given to be continued; a quarter of shorter ones.
_BEGINNING = 64


@dataclass(frozen=True)
class Question:
    """A prompt as tokens and as text, and the reply that the record has to it, where it has one."""

    ids: list[int]
    text: str
    reference: str | None = None
    where: str = ""
    fixed: bool = False


@dataclass
class Exam:
    """The same for all models.

    Attributes:
        samples: records, cut as training cuts them, with labelled tokens; several of one ``index`` are one document.
        more: the source has records that were not taken. left_out: records that cannot be used.
    """

    samples: list[Sample] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    more: bool = False
    left_out: int = 0


def set_exam(
    home: Home,
    data: DataSection,
    template: Template,
    *,
    own: bool,
    records: int,
    replies: int,
    prompts: list[str],
    report: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> Exam:
    """Take the first records of a source, and the first prompts of them.

    Args:
        own: the source is the run's own, so that only what was held out of it counts. Of another one the held-out part
            is taken where it has one, else all of it.
        records: how many at most; 0 for all. replies: how many of them are to be answered too.
        prompts: asked besides.

    Raises:
        WorkbenchError: the source cannot be read, or holds nothing to evaluate on; kind ``cancelled``.
    """
    source = load_records(data, home)
    exam = Exam()
    for prompt in prompts:
        ids = template.encode_prompt([{"role": "user", "content": prompt}])
        exam.questions.append(Question(ids, prompt, fixed=True))
    chosen = _chosen(source, own, report, cancelled)
    while batch := list(islice(chosen, _AT_ONCE)):
        asked = replies - (len(exam.questions) - len(prompts))
        exam.questions += islice(_questions(batch, template), max(asked, 0))
        for sample in encode_items(batch, source, template, data):
            if not sample.trained_tokens:
                exam.left_out += 1
            elif records and len(exam.samples) == records:
                exam.more = True
                return exam
            else:
                exam.samples.append(sample)
    if not exam.samples:
        raise _nothing(data, own, exam.left_out)
    return exam


def _chosen(
    source: Records, own: bool, report: Callable[[Progress], None], cancelled: Callable[[], bool]
) -> Iterator[tuple[int, Item]]:
    only_held_out = own or any(part.held_out_rows for part in source.sources)
    for index, item in enumerate(source.items()):
        if index % _AT_ONCE == 0:
            if cancelled():
                raise WorkbenchError("The evaluation was cancelled.", kind="cancelled")
            report(Progress(phase="reading", fraction=min(item.fraction, 1.0), detail=f"{index:,} records"))
        if item.held_out or not only_held_out:
            yield index, item


def _questions(items: list[tuple[int, Item]], template: Template) -> Iterator[Question]:
    for _, item in items:
        if isinstance(item.content, str):
            ids = template.encode_text(item.content).input_ids
            beginning = ids[: min(max(len(ids) // 4, 1), _BEGINNING)]
            yield Question(beginning, template.tokenizer.decode(beginning, skip_special_tokens=True), where=item.where)
        elif item.content and (question := _question(item.content, template, item.where)):
            yield question


def _question(conversation: Conversation, template: Template, where: str) -> Question | None:
    """The last reply of a conversation, and all that stands before it."""
    turns = conversation.messages
    last = max(place for place, turn in enumerate(turns) if turn["role"] == "assistant")
    before = turns[:last]
    try:
        # Refused in the same words as in training, where such a record is left out.
        template.cut(conversation)
        ids = template.encode_prompt(before, conversation.tools)
    except (BadRecord, WorkbenchError):
        return None
    return Question(ids, _as_text(before), turns[last]["content"], where)


def _as_text(turns: list[Message]) -> str:
    """One question as it is, several turns with who said them."""
    if [turn["role"] for turn in turns] == ["user"]:
        return str(turns[0]["content"])
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _nothing(data: DataSection, own: bool, left_out: int) -> WorkbenchError:
    if own and not left_out:
        return WorkbenchError(
            f"The run has no held-out records of {data.source} (data.eval_fraction is {data.eval_fraction:g}).",
            "Give records that it was not trained on with --data.",
            kind="nothing_held_out",
        )
    return WorkbenchError(
        f"{data.source} has no record to evaluate on; {left_out} are invalid or lost their response to truncation.",
        "Check it with `loraworkbench data`, or raise data.max_length.",
        kind="data_no_tokens",
    )
