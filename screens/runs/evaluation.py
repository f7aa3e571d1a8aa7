"""The dialog for evaluations of a run: base and adapter on records and tasks, replies side by side, and the report."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content

from screens.dialogs.questions import LineDialog
from screens.forms.path_kinds import DATASET
from screens.runs.evaluation_job import JudgeComparison, Wanted, evaluate_in_engine, stop_evaluation
from screens.runs.evaluation_text import reply_columns
from screens.runs.measurements import Measurements
from screens.shell.phase_bar import PhaseBar
from screens.shell.shown_job import ShownJob
from screens.widgets.box_screen import BoxScreen
from screens.widgets.glyphs import ENTER, GLYPHS
from screens.widgets.paragraph import Paragraph, set_title
from screens.widgets.plain import plain, plain_content
from screens.widgets.sizes import NARROW_BELOW
from workbench.engine.client.protocol import new_request_id

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from textual import events
    from textual.app import ComposeResult

    from screens.shell.jobs import Job
    from screens.workbench import Workbench
    from workbench.evaluation.result import Evaluation
    from workbench.runs.folder import RunFolder
    from workbench.storage.paths import Home

_WHILE_BUSY = "Evaluating. Esc continue in the background   x stop and keep what was found"

# The replies of more models than this are stacked, as in a narrow terminal.
_MOST_SIDE_BY_SIDE = 3


class EvaluationScreen(BoxScreen[None]):
    """Shows the newest evaluations of a run and starts new ones."""

    NAME: ClassVar[str] = "Evaluation"
    GUIDE: ClassVar[str] = (
        "The base model and the adapter on held-out records: loss, perplexity, how often the next "
        "token is right, and their replies to the same prompts side by side. ← and → go through "
        "the prompts. t evaluates on lm-eval's tasks; general asks what the run forgot. g has the judge "
        "of the settings compare the replies. Your blind ratings in Chat are summed here too."
    )

    DEFAULT_CSS = """
    EvaluationScreen > #all { width: 96%; height: 92%; scrollbar-size-vertical: 1; }
    EvaluationScreen Paragraph { height: auto; }
    EvaluationScreen PhaseBar { display: none; margin-top: 1; }
    EvaluationScreen.-busy PhaseBar { display: block; }
    EvaluationScreen #figures { margin-bottom: 1; }
    EvaluationScreen #question { height: auto; max-height: 6; margin-bottom: 1; scrollbar-size-vertical: 1; }
    EvaluationScreen #replies { layout: horizontal; height: 1fr; }
    EvaluationScreen #replies VerticalScroll { width: 1fr; height: 1fr; padding-right: 2; scrollbar-size-vertical: 1; }
    EvaluationScreen.-stacked #question { max-height: 100%; }
    EvaluationScreen.-stacked #replies { layout: vertical; height: auto; }
    EvaluationScreen.-stacked #replies VerticalScroll { height: auto; margin-bottom: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "evaluate", "Evaluate", id="evaluation.judge", tooltip="Evaluate base vs. adapter"),
        Binding("d", "records", "Records", id="evaluation.records", tooltip="Evaluate on other records"),
        Binding(
            "k", "checkpoints", "Checkpoints", id="evaluation.checkpoints", tooltip="Include or exclude checkpoints"
        ),
        Binding("t", "tasks", "Tasks", id="evaluation.tasks", tooltip="Evaluate on tasks of lm-eval"),
        Binding("g", "ask_judge", "Judge", id="evaluation.ask_judge", tooltip="Have another model compare the replies"),
        Binding("right,n", "turn(1)", "Next reply", id="evaluation.next"),
        Binding("left,p", "turn(-1)", "Previous reply", id="evaluation.previous"),
        Binding("w", "report", "Report", id="evaluation.report", tooltip="Write report.md to the run folder"),
        Binding("x", "stop", "Stop", id="evaluation.stop", tooltip="Stop the evaluation; keep what was found"),
        Binding("escape,q", "leave", "Back", id="evaluation.leave", tooltip="Close; a running evaluation continues"),
    ]

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self._run = run
        self._wanted = Wanted()
        self._measured = Measurements()
        self._prompt_index = 0
        self._key = ("evaluation", str(run.path))
        # A resize and the end of an evaluation may both show the replies, which takes several turns of the event loop.
        self._showing = asyncio.Lock()
        self._intent = Paragraph(id="intent")
        self._progress = PhaseBar()
        self._shown_job = ShownJob(lambda: self._app.jobs, self._key, self._progress, self._ended)
        self._outcome = Paragraph(id="said")
        self._figures = Paragraph(id="figures")
        self._prompt = Paragraph(id="prompt")
        self._reply_texts: list[Paragraph] = []
        self._replies = Container(id="replies")
        self._box = VerticalScroll(
            self._intent,
            self._progress,
            self._outcome,
            self._figures,
            VerticalScroll(self._prompt, id="question"),
            self._replies,
            id="all",
        )

    def compose(self) -> ComposeResult:
        yield self._box

    async def on_mount(self) -> None:
        set_title(self._box, f"Evaluation of {self._run.title}")
        self._box.focus()
        self._show_intent()
        await self._reload()
        if (job := self._app.jobs.get(self._key)) is not None:
            self._follow(job)

    async def on_resize(self, event: events.Resize) -> None:
        await self._show()

    # -- actions --------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        is_busy = self._shown_job.is_running
        if action == "stop":
            return is_busy
        if action in ("evaluate", "records", "checkpoints", "tasks", "ask_judge", "report"):
            return not is_busy
        if action == "turn":
            evaluation = self._measured.evaluation
            return evaluation is not None and len(evaluation.answered) > 1
        return True

    def action_evaluate(self) -> None:
        """Evaluate the run on records in the engine."""
        self._evaluate(self._wanted)

    def action_tasks(self) -> None:
        """Ask for tasks of lm-eval to evaluate on."""
        from workbench.evaluation.task_result import GENERAL, GENERAL_TASKS

        question = LineDialog(
            "Tasks of lm-eval",
            f"Names, separated by commas. {GENERAL}: what did it forget? ({', '.join(GENERAL_TASKS)})",
            GENERAL,
        )
        self.app.push_screen(question, self._take_tasks)

    def _take_tasks(self, names: str | None) -> None:
        tasks = tuple(filter(None, (name.strip() for name in (names or "").split(","))))
        if tasks:
            self._evaluate(replace(self._wanted, source=None, tasks=tasks))

    def action_ask_judge(self) -> None:
        """Have the judge of the settings compare the replies of the newest evaluation."""
        comparison = JudgeComparison(self._app.session.home, self._run)
        self._begin(comparison.work, comparison.stop)

    def _evaluate(self, wanted: Wanted) -> None:
        request_id = new_request_id()
        work = partial(evaluate_in_engine, self._app, self._run, wanted, request_id)
        self._begin(work, partial(stop_evaluation, self._app, request_id))

    def _begin(self, work: Callable[[Job], Coroutine[Any, Any, str]], stop: Callable[[], object]) -> None:
        self._say("")
        self._progress.show("starting")
        self._follow(
            self._app.jobs.start(
                self._key,
                f"evaluation of {self._run.title}",
                work,
                stop,
                open_result=partial(_open, self._app, self._run),
                describe=str,
            )
        )

    def action_stop(self) -> None:
        """Stop the running evaluation; what was found so far is kept."""
        self._shown_job.stop()

    def action_leave(self) -> None:
        """Close the screen; a running evaluation continues in the background."""
        self.dismiss(None)

    def on_unmount(self) -> None:
        self._shown_job.leave()

    def action_checkpoints(self) -> None:
        """Include or exclude the run's checkpoints."""
        self._wanted = replace(self._wanted, checkpoints=not self._wanted.checkpoints)
        self._show_intent()

    def action_records(self) -> None:
        """Ask for the records to evaluate on."""
        question = LineDialog(
            "Records to evaluate on",
            "A bundled dataset, a file, a folder or a Hugging Face dataset. Leave empty for the "
            "run's held-out records.",
            self._wanted.source or "",
            paths=DATASET,
        )
        self.app.push_screen(question, self._take_source)

    def _take_source(self, source: str | None) -> None:
        if source is not None:
            self._wanted = replace(self._wanted, source=source.strip() or None)
            self._show_intent()

    async def action_turn(self, by: int) -> None:
        """Show the next or the previous prompt with its replies."""
        evaluation = self._measured.evaluation
        if evaluation is not None and evaluation.answered:
            self._prompt_index = (self._prompt_index + by) % len(evaluation.answered)
            await self._show_replies(evaluation)

    def action_report(self) -> None:
        """Write the report of the newest evaluation."""
        self._app.attempt(self._report())

    # -- evaluating -----------------------------------------------------------------------------------------------

    @property
    def _app(self) -> Workbench:
        return cast("Workbench", self.app)

    def _follow(self, job: Job) -> None:
        """Show an evaluation that is running, or its result."""
        self._shown_job.follow(job)
        self._show_intent()

    def _ended(self, job: Job) -> None:
        if job.error is not None and job.error.kind == "cancelled":
            self._say(job.error.message)
        elif job.state == "stopped":
            self._say("The evaluation was stopped before it began.")
        elif job.error is not None:
            self._app.show_error(job.error)
        elif job.result is not None:
            self._prompt_index = 0
            self._say(job.result)
        self.call_later(self._reload)

    async def _reload(self) -> None:
        """Read what was measured, and show it."""
        self._measured = await asyncio.to_thread(Measurements.of, self._run)
        await self._show()

    async def _report(self) -> None:
        file = await asyncio.to_thread(_write_report, self._app.session.home, self._run)
        self._say(f"Report written: {file.parent.name}/{file.name}")

    def _say(self, text: str) -> None:
        """Show how the last action ended; empty text clears it."""
        self._outcome.show(plain_content(text, "$success"))

    # -- display --------------------------------------------------------------------------------------------------

    def _show_intent(self) -> None:
        """Show what the next evaluation will cover, and the keys."""
        is_busy = self._shown_job.is_running
        self.set_class(is_busy, "-busy")
        records = plain(self._wanted.source) if self._wanted.source else "its held-out records"
        checkpoints = ", and checkpoints" if self._wanted.checkpoints else ""
        keys = "d other records  k checkpoints  t tasks  g judge"
        intent = f"{ENTER} evaluate base vs. adapter{checkpoints} on {records}.  {keys}"
        self._intent.show(plain_content(_WHILE_BUSY if is_busy else intent, "$text-muted"))
        keys = f"{GLYPHS.separator} ".join(("← → replies ", "w report ", "Esc back"))
        self._box.border_subtitle = keys
        self.refresh_bindings()

    async def _show(self) -> None:
        """Show the intent and the newest evaluation."""
        self._show_intent()
        if self._measured.is_empty:
            self._figures.show(plain_content("" if self._shown_job.is_running else "\nNot evaluated yet.", lines=True))
            return
        self._figures.show(self._measured.text(is_wide=self.app.size.width >= NARROW_BELOW))
        if self._measured.evaluation is not None:
            await self._show_replies(self._measured.evaluation)

    async def _show_replies(self, evaluation: Evaluation) -> None:
        async with self._showing:
            await self._show_prompt(evaluation)

    async def _show_prompt(self, evaluation: Evaluation) -> None:
        if not evaluation.answered:
            return
        answered = evaluation.answered[self._prompt_index]
        count = f"{self._prompt_index + 1} of {len(evaluation.answered)}{' (fixed)' if answered.fixed else ''}"
        text = plain_content(answered.prompt.strip(), lines=True)
        self._prompt.show(Content.assemble((f"prompt {count}  ", "bold $accent"), text))
        columns = reply_columns(answered)
        # New widgets are mounted only if the number of columns changes.
        if len(self._reply_texts) != len(columns):
            self._reply_texts = [Paragraph() for _ in columns]
            await self._replies.remove_children()
            await self._replies.mount(*map(VerticalScroll, self._reply_texts))
        for words, (name, reply) in zip(self._reply_texts, columns, strict=True):
            words.show(Content.assemble((f"{plain(name)}\n", "bold"), plain_content(reply, lines=True)))
        self._arrange()

    def _arrange(self) -> None:
        self.set_class(self.app.size.width < NARROW_BELOW or len(self._reply_texts) > _MOST_SIDE_BY_SIDE, "-stacked")


def _open(app: Workbench, run: RunFolder) -> None:
    app.push_screen(EvaluationScreen(run))


# These run in a thread: they read files, and import modules that the first frame does not need.


def _write_report(home: Home, run: RunFolder) -> Path:
    from workbench.evaluation.report import write_report

    return write_report(home, run).markdown
