"""Train: start a run, watch it, stop it. What is shown comes from the run's journal and the engine's state alone."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content

from screens.dialogs import Choice, ChoiceDialog
from screens.messages import JournalGrew, RecipeChanged, SampleTaken, StatusChanged
from screens.story import Story
from screens.widgets.facts import Fact, Facts
from screens.widgets.figures import clock, short
from screens.widgets.glyphs import GLYPHS
from screens.widgets.gpu_panel import GpuPanel
from screens.widgets.header import method_word, short_name, targets_word
from screens.widgets.log_pane import LogPane
from screens.widgets.loss_chart import Curve, LossChart
from screens.widgets.pane import beside
from screens.widgets.phase_bar import PhaseBar
from screens.widgets.plain import plain, plain_content
from screens.widgets.problem import Problem
from screens.widgets.quiet import QuietPane, Words, entitle
from screens.widgets.scale import short_number
from workbench.data.facts import DataFacts
from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult

    from workbench.engine.protocol import EngineStatus
    from workbench.recipe import Recipe


_SECONDS_BETWEEN_READS = 0.5

# A run is not kept waiting longer for a look at its data.
_SECONDS_FOR_A_SAMPLE = 3.0


class TrainPane(QuietPane):
    """The live run, or the one that was live last; without either, what Enter would start."""

    NAME = "Train"
    GUIDE = (
        "Enter starts a run with the recipe in hand. It trains in the engine, a process of its own: closing this "
        "terminal does not end it, and a terminal opened later shows it from its first step. s ends it and keeps the "
        "adapter, S ends it and keeps nothing; l shows what the libraries print."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "start", "Start", id="train.start", tooltip="Fine-tune with the recipe in hand"),
        Binding("s", "stop", "Stop, save", id="train.stop", tooltip="End the run and keep its adapter"),
        Binding("S", "discard", "Discard", key_display="S", id="train.discard", tooltip="End the run, keep no adapter"),
        Binding("l", "log", "Log", id="train.log", tooltip="Show or hide what the libraries print"),
        Binding("y", "copy", "Copy error", id="train.copy", tooltip="Copy why the run failed to the clipboard"),
    ]

    def __init__(self, **names: str) -> None:
        super().__init__(**names)
        self._story: Story | None = None
        self._asking = False

    def compose(self) -> ComposeResult:
        yield PhaseBar()
        with Vertical(id="live"):
            with Vertical(id="course"):
                yield Words(id="plan")
                yield LossChart()
                yield Facts(id="figures")
                yield Words(id="notice")
            with Vertical(id="side"):
                yield GpuPanel()
                yield Facts(stacked=True, id="about")
        yield Problem()
        yield LogPane()

    def on_mount(self) -> None:
        self.query_one(LossChart).border_title = "loss over steps"
        self.query_one(LogPane).border_title = "engine.log of this run"
        self.query_one("#plan").border_title = "ready"

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < 100, "-narrow")

    # -- what the app tells ---------------------------------------------------------------------------------------

    def on_shown(self) -> None:
        self._follow_status(self.session.status)
        if self._story is not None:
            self.run_worker(self._catch_up(self._story))
        self._show_hardware()
        self._draw()

    @on(StatusChanged)
    def _engine_changed(self, message: StatusChanged) -> None:
        self._follow_status(message.status)
        if self._story is not None and not self._is_live(self._story):
            # The app reads on for a live run; what a dead one said last, or did not say, is read here.
            self.run_worker(self._catch_up(self._story))
        self._draw()

    @on(JournalGrew)
    async def _run_went_on(self, message: JournalGrew) -> None:
        if self._story is not None and message.run == self._story.run.id:
            await self._story.add(message.events)
            self._draw()

    @on(SampleTaken)
    def _show_hardware(self) -> None:
        if self.session.gpus or self.session.host:
            self.set_class(not self.session.gpus, "-no-gpu")
            status = self.session.status
            self.query_one(GpuPanel).sample(self.session.gpus, self.session.host, status.pid if status else None)

    @on(RecipeChanged)
    def _recipe_changed(self) -> None:
        self._draw()

    def _follow_status(self, status: EngineStatus | None) -> None:
        if status is not None and status.run is not None:
            folder = Path(status.run_folder) if status.run_folder else self.session.home.runs / status.run
            self._follow(RunFolder(folder))

    def _follow(self, run: RunFolder) -> None:
        """Show this run from its beginning."""
        if self._story is None or self._story.run != run:
            self._story = Story(run)
            self.run_worker(self._catch_up(self._story))

    def _is_live(self, story: Story) -> bool:
        status = self.session.status
        return status is not None and status.run == story.run.id

    async def _catch_up(self, story: Story) -> None:
        await story.catch_up()
        if story is self._story:
            self._draw()

    # -- what the user does ---------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that cannot be used are not offered: what can be done follows from the engine's state."""
        status = self.session.status
        is_live = self.session.is_live
        match action:
            case "start":
                busy = status is not None and status.state != "idle"
                return not is_live and (None if busy or self._asking else True)
            case "stop" | "discard":
                return is_live and (None if status is not None and status.stopping else True)
            case "log":
                return self._story is not None
            case "copy":
                return self._story is not None and self._story.error is not None
        return True

    def action_start(self) -> None:
        """Fine-tune with the recipe in hand."""
        self._asking = True
        self.refresh_bindings()
        self.run_worker(self._start())

    async def _start(self) -> None:
        try:
            await self.workbench.start_engine()
            recipe = self.session.recipe
            if not await self._may_lose_replies(recipe):
                return
            run = await self.session.engine.train(recipe)
        except WorkbenchError as error:
            self.workbench.show_error(error)
        else:
            self._follow(RunFolder(self.session.home.runs / run))
            self.run_worker(self._see_off(self._story))
        finally:
            self._asking = False
            self._draw()

    async def _may_lose_replies(self, recipe: Recipe) -> bool:
        """Whether to start: asked where many records lose their reply to the cut, as far as is known or soon told."""
        facts = self.session.facts_of(recipe) or await self._sampled(recipe)
        if facts is None or not facts.loses_many_replies:
            return True
        start, back = Choice("s", "Start all the same", "start"), Choice("b", "Back", "back")
        question = ChoiceDialog("Many replies are cut off", facts.lost_replies, (back, start))
        return await self.app.push_screen_wait(question) == start.value

    async def _sampled(self, recipe: Recipe) -> DataFacts | None:
        """The facts of a sample, if the engine gives them at once; a run says itself what is wrong with its data."""
        with suppress(WorkbenchError, TimeoutError):
            async with asyncio.timeout(_SECONDS_FOR_A_SAMPLE), aclosing(self.session.engine.facts(recipe)) as answers:
                async for answer in answers:
                    if isinstance(answer, DataFacts):
                        return answer
        return None

    async def _see_off(self, story: Story | None) -> None:
        """Read a new run's journal until the app does: one that fails at once is never seen live."""
        while story is not None and story is self._story and not self._is_live(story) and not story.is_over:
            await self._catch_up(story)
            await asyncio.sleep(_SECONDS_BETWEEN_READS)

    def action_stop(self) -> None:
        """End the run and keep its adapter."""
        self._ask_to_stop(
            "Stop and save?",
            "The run ends after the present step. The adapter as it is then is kept and can be chatted with.",
            Choice("s", "Stop and save", "save"),
        )

    def action_discard(self) -> None:
        """End the run and keep no adapter."""
        self._ask_to_stop(
            "Stop and discard?",
            "The run ends after the present step and no adapter is kept. Its curve and its log stay in Runs.",
            Choice("d", "Discard", "discard"),
        )

    def _ask_to_stop(self, title: str, text: str, stop: Choice) -> None:
        def answered(answer: str | None) -> None:
            if answer == stop.value:
                self.workbench.attempt(self.session.engine.stop(save=answer == "save"))

        self.app.push_screen(ChoiceDialog(title, text, (stop, Choice("k", "Keep training", "keep"))), answered)

    def action_log(self) -> None:
        """Show or hide what the libraries print."""
        self.toggle_class("-log")
        self._draw()

    def action_copy(self) -> None:
        """Copy why the run failed to the clipboard."""
        self.app.copy_to_clipboard(self.query_one(Problem).text)
        self.notify("Copied.", timeout=2)

    # -- what is shown --------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        """Bring every part up to date; each repaints only where it differs."""
        if not self.is_shown or not self.is_attached:
            return
        story = self._story
        self.set_class(story is None, "-empty")
        self.refresh_bindings()
        if story is None:
            self.query_one("#plan", Words).show(_plan(self.session.recipe))
            return
        self.query_one(PhaseBar).show(*self._phase(story))
        self.query_one(LossChart).show(
            [Curve("train", story.train), Curve("eval", story.eval, marked=True)],
            end=story.summary.max_steps,
            nothing="" if story.is_over else "The curve begins with the first step.",
        )
        self.query_one("#figures", Facts).show(_figures(story))
        about = self.query_one("#about", Facts)
        entitle(about, story.run.id)
        about.show(_about(story))
        self.query_one("#notice", Words).show(plain_content(story.notices[-1] if story.notices else ""))
        host = story.step.get("host") or {}
        self.query_one(GpuPanel).run_used(
            story.summary.peak_vram or host.get("peak") or 0,
            story.summary.predicted_allocated if story.summary.peak_vram else None,
        )
        if self.has_class("-failed") != (story.error is not None):
            self.set_class(story.error is not None, "-failed")
            if story.error is not None:
                self.query_one(Problem).show(story.error)
        if self.has_class("-log"):
            self.query_one(LogPane).show(story.run.log)

    def _phase(self, story: Story) -> tuple[str, float | None, str]:
        """The phase in a word, how far it has come, and words to it."""
        summary = story.summary
        if story.is_over:
            return summary.state, None, _outcome(story)
        status = self.session.status
        if status is not None and status.stopping:
            return "stopping", None, "the present step is finished first"
        steps = f"step {summary.step}/{summary.max_steps}" if summary.max_steps else ""
        if summary.step and summary.phase == "training":
            fraction = summary.step / summary.max_steps if summary.max_steps else None
            return "training", fraction, _dotted(steps, f"ETA {clock(summary.eta_seconds)}")
        return (
            str(story.phase.get("phase", "starting")),
            story.phase.get("fraction"),
            _dotted(str(story.phase.get("detail", "")), steps if summary.step else ""),
        )


def _plan(recipe: Recipe) -> Content:
    """What Enter would start, in words."""
    training = recipe.training
    epochs = "1 epoch" if training.num_train_epochs == 1 else f"{training.num_train_epochs:g} epochs"
    length = f"{training.max_steps} steps" if training.max_steps > 0 else epochs
    lines = (
        ("Nothing is training. ", "bold"),
        ("Press Enter", "bold $accent"),
        (" to fine-tune\n\n", ""),
        ("  model     ", "$foreground 70%"),
        (f"{plain(short_name(recipe.model.source))}\n", "bold"),
        ("  as        ", "$foreground 70%"),
        (f"{_dotted(method_word(recipe), f'r {recipe.adapter.r}', plain(targets_word(recipe)))}\n", ""),
        ("  on        ", "$foreground 70%"),
        (f"{plain(recipe.data.source)}\n", ""),
        ("  batch     ", "$foreground 70%"),
        (
            f"{training.per_device_train_batch_size} × {training.gradient_accumulation_steps} = "
            f"{training.effective_batch} records a step\n",
            "",
        ),
        ("  for       ", "$foreground 70%"),
        (f"{length}, learning rate {short_number(training.learning_rate)}\n\n", ""),
        ("3 Adapter and 4 Data change it.", "$foreground 70%"),
    )
    return Content.assemble(*lines)


def _outcome(story: Story) -> str:
    summary = story.summary
    if summary.state == "interrupted":
        kept = f"the checkpoint of step {story.checkpoint} is kept" if story.checkpoint else "no checkpoint was made"
        return _dotted(f"at step {summary.step}", summary.reason, kept, "l shows its log")
    if summary.state == "failed":
        return f"at step {summary.step}" if summary.step else "before the first step"
    seconds = (summary.ended or 0) - (summary.started or 0)
    base, tuned = (summary.perplexity.get(name) for name in ("base", "tuned"))
    perplexity = f"perplexity {_figure(base, '.1f')} → {_figure(tuned, '.1f')}" if base and tuned else ""
    kept = "no adapter kept" if summary.reason == "discarded" else "6 chats with it"
    return _dotted(f"{summary.step} steps in {clock(seconds)}", perplexity, kept)


def _figures(story: Story) -> list[Fact]:
    step = story.step
    loss = step.get("loss")
    return [
        # A loss that is no number has no place on the chart, and matters most.
        Fact("loss", str(loss) if isinstance(loss, str) else "", "bad"),
        Fact("lr", short_number(rate) if isinstance(rate := step.get("learning_rate"), float) else ""),
        Fact("grad norm", _figure(step.get("grad_norm"), ".2f")),
        Fact("tok/s", short(step["tokens_per_second"]) if step.get("tokens_per_second") else ""),
        Fact("tokens", short(step["tokens"]) if step.get("tokens") else ""),
        Fact("epoch", _figure(step.get("epoch"), ".2f")),
        Fact("accuracy", _figure(step.get("token_accuracy"), ".1%")),
    ]


def _about(story: Story) -> list[Fact]:
    """What the run was started with and what is known of it so far."""
    recipe = story.started.get("recipe") or {}
    facts = story.facts
    trainable, counts = facts.get("trainable_parameters"), facts.get("counts") or {}
    base, tuned = (story.summary.perplexity.get(name) for name in ("base", "tuned"))
    return [
        Fact("model", short_name(story.summary.model)),
        Fact("base", str(facts.get("base", ""))),
        Fact("computes in", str(facts.get("compute_dtype", ""))),
        Fact("trainable", f"{trainable:,}" if trainable else ""),
        Fact("data", str((recipe.get("data") or {}).get("source", ""))),
        # What is nought is as it should be, and would only hide what is not.
        *(Fact(name.replace("_", " "), f"{count:,}") for name, count in counts.items() if type(count) is int and count),
        Fact("perplexity", f"{_figure(base, '.2f')} of the base" if base else ""),
        Fact("", f"{_figure(tuned, '.2f')} now" if tuned else "", "good" if base and _is_less(tuned, base) else ""),
        Fact("checkpoint", f"at step {story.checkpoint}" if story.checkpoint else ""),
        Fact("notices", f"{len(story.notices)}" if story.notices else "", "warn"),
    ]


def _is_less(value: object, other: object) -> bool:
    return isinstance(value, float) and isinstance(other, float) and value < other


def _figure(value: object, form: str) -> str:
    if isinstance(value, int | float):
        return format(value, form)
    return str(value) if value else ""


def _dotted(*parts: str) -> str:
    return f" {GLYPHS.separator} ".join(part for part in parts if part)
