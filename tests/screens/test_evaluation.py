"""The evaluation of a run: what was found, and having it found anew."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from screens.runs.evaluation import EvaluationScreen
from screens.shell.phase_bar import PhaseBar
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.screens.scripted import ScriptedEngine
from tests.screens.test_runs_pane import history, trained
from workbench.engine.client.protocol import TaskSettings
from workbench.errors import WorkbenchError
from workbench.evaluation.preferences import Rating, add_ratings, read_ratings
from workbench.evaluation.result import (
    AnsweredPrompt,
    EvaluatedModel,
    Evaluation,
    Interval,
    ModelMetrics,
    save_evaluation,
)
from workbench.evaluation.task_result import TASK_RESULTS, Flips, TaskEvaluation, TaskMetric
from workbench.runs.folder import RunFolder
from workbench.storage import settings


def about(value: float) -> Interval:
    return Interval(value=value, low=value * 0.9, high=value * 1.1)


def evaluation(*, models: int = 1, **more: Any) -> Evaluation:
    """Base 20.1, tuned 2.7; two records and one fixed prompt answered by all."""
    names = ["base", *(f"run-{n:02d}" for n in range(1, models + 1))]
    perplexity = {name: 20.1 if name == "base" else 2.7 for name in names}
    scores = {"exact": about(0.25), "contains": about(0.5), "rouge_l": about(0.75)}
    judged = [
        EvaluatedModel(
            name=name,
            folder=None if name == "base" else f"/runs/{name}/adapter",
            figures=ModelMetrics(
                loss=about(1), perplexity=about(perplexity[name]), token_accuracy=about(0.6), **scores
            ),
            minus=None
            if name == "base"
            else ModelMetrics(loss=about(1), perplexity=about(17.4), token_accuracy=about(-0.2), **scores),
        )
        for name in names
    ]
    answered = [
        AnsweredPrompt(prompt="Where to?", reference="To sea.", replies={name: f"{name} says aye" for name in names}),
        AnsweredPrompt(
            prompt="[red]Why[/]?\x1b[2J", reference="None.", replies=dict.fromkeys(names, "[bold]Because[/]")
        ),
        AnsweredPrompt(prompt="Capital?", replies={name: f"Paris by {name}" for name in names}, fixed=True),
    ]
    facts: dict[str, Any] = {
        "time": 1.0, "run": "run-01", "model": "m", "source": "first-mate", "own": True, "records": 26, "more": False,
        "left_out": 0, "tokens": 812, "max_length": 64, "referenced": 2, "too_long": 0, "max_new_tokens": 8, "seed": 0,
        "draws": 10, "level": 0.95, "judged": judged, "answered": answered,
    }  # fmt: skip
    return Evaluation(**(facts | more))


def run_of(engine: ScriptedEngine) -> RunFolder:
    assert engine.run is not None
    return engine.run


async def judging(screen: Opened) -> EvaluationScreen:
    await history(screen, 1)
    await screen.press("e")
    await screen.until(lambda: isinstance(screen.app.screen, EvaluationScreen), "the evaluation")
    assert isinstance(screen.app.screen, EvaluationScreen)
    return screen.app.screen


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_a_run_is_judged_and_what_was_found_is_shown(tmp_path: Path, size: tuple[int, int]) -> None:
    engine = trained(tmp_path)
    async with opened(tmp_path, engine=engine, size=size) as screen:
        await judging(screen)
        await screen.sees("Not evaluated yet.")
        await screen.press("enter")
        await screen.until(lambda: engine.backend.evaluations, "the request")
        assert engine.backend.evaluations[0].run == str(run_of(engine).path)
        assert engine.backend.evaluations[0].data is None
        assert not engine.backend.evaluations[0].checkpoints
        engine.load("evaluating", 0.5, "base, 1 of 2")
        await screen.sees("base, 1 of 2")
        await screen.sees("50 %")
        engine.found(save_evaluation(run_of(engine), evaluation()))
        await screen.sees("run-01 is better than the base")
        await screen.sees("20.1")
        await screen.sees("prompt 1 of 3  Where to?")
        await screen.press("pagedown")
        await screen.sees("run-01 says aye")
        # The replies may be laid out after the key.
        await screen.press("pagedown")
        await screen.sees("To sea.")
        assert not screen.app.screen.query_one(PhaseBar).display
        if size == WIDE:
            await screen.sees("2.7 (2.43 to 2.97)")
            line = next(line for line in screen.words.splitlines() if "says aye" in line)
            assert "base says aye" in line
            assert "run-01 says aye" in line
            assert "To sea." in line


async def test_replies_turn_and_foreign_text_is_only_text(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    save_evaluation(run_of(engine), evaluation())
    async with opened(tmp_path, engine=engine) as screen:
        await judging(screen)
        await screen.sees("prompt 1 of 3")
        await screen.press("right")
        await screen.sees("[red]Why[/]?␛[2J")
        await screen.sees("[bold]Because[/]")
        await screen.press("n")
        await screen.sees("prompt 3 of 3 (fixed)  Capital?")
        assert "reference" not in screen.words
        await screen.press("left", "left")
        await screen.sees("prompt 1 of 3")
        await screen.press("escape")
        await screen.until(lambda: not isinstance(screen.app.screen, EvaluationScreen), "the history")
    assert engine.backend.evaluations == []


async def test_other_records_and_the_checkpoints_are_asked_for(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    async with opened(tmp_path, engine=engine) as screen:
        await judging(screen)
        await screen.press("d", *"mine.jsonl", "enter")
        await screen.sees("on mine.jsonl")
        await screen.press("k")
        await screen.sees("and checkpoints")
        await screen.press("enter")
        await screen.until(lambda: engine.backend.evaluations, "the request")
        data = engine.backend.evaluations[0].data
        assert data is not None
        assert data["source"] == "mine.jsonl"
        assert engine.backend.evaluations[0].checkpoints
        await screen.press("x")
        await screen.until(lambda: engine.state == "idle", "its end")


async def test_it_goes_on_in_the_background_and_its_result_is_there(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    async with opened(tmp_path, engine=engine) as screen:
        await judging(screen)
        await screen.press("enter")
        await screen.until(lambda: engine.state == "evaluating", "the evaluation")
        await screen.press("enter")  # not a second one
        await screen.press("escape")
        await screen.until(lambda: not isinstance(screen.app.screen, EvaluationScreen), "the history")
        await screen.press("3", "right")
        assert screen.app.session.recipe.adapter.r == 32, "the app is used meanwhile"
        engine.load("evaluating", 0.5, "base, 1 of 2")
        await screen.sees("evaluation of run-01")
        await screen.sees("evaluating · 50%")
        await judging(screen)
        await screen.sees("base, 1 of 2")
        await screen.press("escape")
        await screen.until(lambda: not isinstance(screen.app.screen, EvaluationScreen), "the history again")
        engine.found(save_evaluation(run_of(engine), evaluation()))
        await screen.is_told("Evaluation of run-01 is finished")
        await screen.until(lambda: "evaluation of run-01" not in screen.words, "its line is gone")
        await judging(screen)
        await screen.sees("run-01 is better than the base")
        assert len(engine.backend.evaluations) == 1


async def test_x_stops_it_and_what_was_found_is_shown(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    async with opened(tmp_path, engine=engine) as screen:
        await judging(screen)
        await screen.press("enter")
        await screen.until(lambda: engine.state == "evaluating", "the evaluation")
        engine.backend.found_when_stopped = save_evaluation(run_of(engine), evaluation(planned=256))
        await screen.press("x")
        await screen.sees("Stopped; what was found is saved in the run folder.")
        await screen.sees("Stopped early: 26 of 256 records.")
        await screen.sees("run-01 is better than the base")
        engine.backend.found_when_stopped = None
        await screen.press("enter")
        await screen.until(lambda: engine.state == "evaluating", "another one")
        await screen.press("x")
        await screen.until(lambda: engine.state == "idle", "its end")
        await screen.sees("The work was cancelled.")
        assert isinstance(screen.app.screen, EvaluationScreen)


async def test_replies_are_shown_once_when_the_terminal_changes_meanwhile(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    save_evaluation(run_of(engine), evaluation())
    async with opened(tmp_path, engine=engine) as screen:
        shown = await judging(screen)
        found = evaluation(models=4)
        await asyncio.gather(shown._show_replies(found), shown._show_replies(evaluation()), shown._show_replies(found))
        columns = shown.query("#replies VerticalScroll")
        assert len(columns) == 6
        assert all(column.is_attached for column in columns)


async def test_what_goes_wrong_is_said_and_another_one_can_be_asked_for(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    async with opened(tmp_path, engine=engine) as screen:
        await judging(screen)
        await screen.press("enter")
        await screen.until(lambda: engine.state == "evaluating", "the evaluation")
        engine.break_off(WorkbenchError("The run held out no record.", "Name records."))
        await screen.sees("The run held out no record.")
        await screen.sees("Name records.")
        await screen.press("escape", "enter")
        await screen.until(lambda: len(engine.backend.evaluations) == 2, "the second one")
        await screen.press("x")


async def test_many_models_stand_below_each_other(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    save_evaluation(run_of(engine), evaluation(models=4))
    async with opened(tmp_path, engine=engine, size=(120, 50)) as screen:
        await judging(screen)
        await screen.sees("run-02 says aye")
        assert not any("base says aye" in line and "run-01" in line for line in screen.words.splitlines())


async def test_w_writes_the_report(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    save_evaluation(run_of(engine), evaluation())
    async with opened(tmp_path, engine=engine) as screen:
        await judging(screen)
        await screen.sees("prompt 1 of 3")
        await screen.press("w")
        report = run_of(engine).path / "report.md"
        await screen.until(report.is_file, "the report")
        await screen.sees("Report written: run-01/report.md")
    assert "run-01 is better than the base" in report.read_text()
    assert (run_of(engine).path / "report.svg").is_file()


def on_tasks() -> TaskEvaluation:
    """53 of 100 items right before, 41 after: ten gained, 22 lost."""
    values, minus = {"base": about(0.53), "run-01": about(0.41)}, Interval(value=0.12, low=0.01, high=0.23)
    metric = TaskMetric(
        task="hellaswag", metric="acc", items=100, higher_is_better=True, values=values, minus={"run-01": minus},
        flips={"run-01": Flips(gained=10, lost=22, p=0.05)},
    )  # fmt: skip
    facts: dict[str, Any] = {"time": 1.0, "run": "run-01", "model": "m", "batch_size": 4, "seed": 0, "draws": 10}
    return TaskEvaluation(
        tasks=["general"], limit=200, level=0.95, models=["base", "run-01"], seconds={}, metrics=[metric], **facts
    )


async def test_tasks_are_asked_for_and_shown_with_the_ratings(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    async with opened(tmp_path, engine=engine) as screen:
        await judging(screen)
        await screen.press("t")
        await screen.is_asked("what did it forget?")
        await screen.press("enter")
        await screen.until(lambda: engine.backend.evaluations, "the request")
        assert engine.backend.evaluations[0].tasks == TaskSettings(names=["general"])
        ratings = [
            Rating(time=1.0, rater="user", names=("base", "run-01"), prompt=f"p{n}", replies=("a", "b"), scores=(1.0,))
            for n in range(3)
        ]
        add_ratings(run_of(engine), ratings)
        engine.found(TASK_RESULTS.save(run_of(engine), on_tasks()))
        await screen.sees("Saved in the run folder.")
        await screen.sees(
            "run-01 is worse than the base on hellaswag (acc): 53.0% → 41.0%, lower by 12.0% (1.0% to 23.0%)"
        )
        assert "hellaswag  acc     100" in screen.words
        await screen.sees("You preferred run-01 to the base: win rate 100.0%")
        assert "Not evaluated yet" not in screen.words


async def test_a_judge_needs_settings_and_replies_and_can_be_stopped(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    async with opened(tmp_path, engine=engine) as screen:
        await judging(screen)
        await screen.press("g")
        await screen.is_asked("No judge is configured.")
        await screen.press("escape")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
            settings.update(screen.app.session.home, {"judge": {"url": url, "model": "wise"}})
            await screen.press("g")
            await screen.is_asked("There are no replies to compare yet.")
            await screen.press("escape")
            save_evaluation(run_of(engine), evaluation())
            await screen.press("g")
            await screen.sees("1 of 3")  # the replies to one of three prompts are the same
            await screen.press("x")
            await screen.sees("Stopped; no rating is saved.")
    assert read_ratings(run_of(engine)) == []
