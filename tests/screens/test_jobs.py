"""Work in the background: its list, how it is stopped, what it leaves, and an evaluation that waits for a run."""

from pathlib import Path

from screens.models.table import ModelTable
from screens.runs.evaluation import EvaluationScreen
from screens.shell.jobs_screen import JobsScreen
from screens.shell.sampled_replies import RepliesScreen
from tests.screens.piloting import NARROW, Opened, opened
from tests.screens.test_evaluation import evaluation, run_of
from tests.screens.test_runs_pane import history, trained
from workbench.errors import WorkbenchError
from workbench.evaluation.result import save_evaluation
from workbench.progress import Progress
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.model import DEFAULT_MODEL


async def listed_jobs(screen: Opened) -> JobsScreen:
    await screen.press("f9")
    await screen.until(lambda: isinstance(screen.app.screen, JobsScreen), "the list of jobs")
    assert isinstance(screen.app.screen, JobsScreen)
    return screen.app.screen


async def ask_to_evaluate(screen: Opened, runs: int) -> None:
    await history(screen, runs)
    await screen.press(*["down"] * (runs - 1), "e")
    await screen.until(lambda: isinstance(screen.app.screen, EvaluationScreen), "the evaluation")
    await screen.press("enter")


async def test_an_evaluation_waits_for_the_run_to_end(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    first = run_of(engine)
    engine.begin(Recipe(), max_steps=100)
    engine.phase("training", 0.0, max_steps=100)
    engine.step(12, 2.0)
    async with opened(tmp_path, engine=engine) as screen:
        await screen.until(lambda: screen.app.session.is_live, "the live run")
        await ask_to_evaluate(screen, 2)
        await screen.sees("waiting for run-02 to end")
        await screen.press("escape")
        assert not engine.backend.evaluations
        await listed_jobs(screen)
        await screen.sees("run run-02  training · step 12/100")
        await screen.sees("evaluation of run-01")
        await screen.press("f9")
        engine.finish()
        await screen.until(lambda: engine.backend.evaluations, "the evaluation begins")
        engine.found(save_evaluation(first, evaluation()))
        await screen.is_told("Evaluation of run-01 is finished")
        await listed_jobs(screen)
        await screen.sees("Saved in the run folder.")
        await screen.press("enter")
        await screen.until(lambda: isinstance(screen.app.screen, EvaluationScreen), "its result")


async def test_one_that_waits_is_cancelled_and_the_engine_never_hears_of_it(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    engine.begin(Recipe(), max_steps=100)
    async with opened(tmp_path, engine=engine) as screen:
        await screen.until(lambda: screen.app.session.is_live, "the live run")
        await ask_to_evaluate(screen, 2)
        await screen.sees("waiting for run-02 to end")
        await screen.press("x")
        await screen.sees("stopped before it began")
        await screen.press("escape")
        await listed_jobs(screen)
        await screen.sees("evaluation of run-01  stopped")
        assert not engine.backend.evaluations
        assert "evaluate" not in engine.asked


async def test_what_an_evaluation_found_is_kept_when_it_is_stopped_from_the_list(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    async with opened(tmp_path, engine=engine, size=NARROW) as screen:
        await ask_to_evaluate(screen, 1)
        await screen.until(lambda: engine.state == "evaluating", "the evaluation")
        engine.backend.found_when_stopped = save_evaluation(run_of(engine), evaluation(planned=256))
        await screen.press("escape")
        await listed_jobs(screen)
        await screen.press("x")
        await screen.sees("evaluation of run-01  finished")
        await screen.press("d")
        await screen.sees("No jobs.")


async def test_downloads_go_side_by_side_and_one_that_fails_says_why(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.until(lambda: screen.app.query_one(ModelTable).row_count, "the list")
        await screen.press("space")
        await screen.until(lambda: f"fetch {DEFAULT_MODEL}" in screen.engine.asked, "the download")
        screen.engine.load("downloading", 0.25, "66 of 269 MB")
        await screen.sees("downloading · 25%")
        await screen.tab("adapter")
        screen.engine.break_off(WorkbenchError("The disk is full.", "Free 300 MB.", kind="disk_full"))
        await screen.is_told("Download of SmolLM2-135M-Instruct failed: The disk is full.")
        await listed_jobs(screen)
        await screen.sees("download of SmolLM2-135M-Instruct  failed")
        await screen.sees("The disk is full. Free 300 MB.")
        await screen.press("enter")
        await screen.until(lambda: screen.app.pane_in_front and screen.app.pane_in_front.id == "models", "its tab")


async def test_a_job_that_is_cancelled_before_it_began_is_over(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        jobs, did = screen.app.jobs, []

        async def work(_: object) -> str:
            did.append(1)
            return "done"

        job = jobs.start(("test", "a"), "something", work)
        job.stop()
        assert (job.is_over, job.state) == (True, "stopped")
        other = jobs.start(("test", "b"), "something else", work, describe=str)
        await screen.until(lambda: other.is_over, "its end")
        assert (other.state, other.outcome, did) == ("finished", "done", [1])
        assert jobs.all == [job, other]
        assert not jobs.running


async def test_replies_sampled_in_a_run_are_a_job(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    run = engine.begin(Recipe(), max_steps=100)
    engine.phase("training", 0.0, max_steps=100)
    engine.step(12, 2.0)
    async with opened(tmp_path, engine=engine, tab="train") as screen:
        await screen.sees("step 12/100")
        await screen.press("x")
        await screen.sees("sampling of run-02")
        await screen.sees("after this step")
        engine.reports(Progress(phase="sampling", fraction=1 / 3, detail="reply 2 of 3"))
        await screen.sees("sampling · 33%")
        engine.sample(12, [("Who?", "Me."), ("What?", "That.")])
        engine.obey(12)
        await screen.is_told("Sampling of run-02 is finished")
        await listed_jobs(screen)
        await screen.sees("2 replies at step 12.")
        await screen.press("enter")
        await screen.until(lambda: isinstance(screen.app.screen, RepliesScreen), "the replies")
        await screen.sees("prompt 1 of 2")

        # Stopped from the list, and the run goes on.
        await screen.press("escape")
        engine.asked.clear()
        await screen.press("x")
        await screen.until(lambda: engine.asked == ["sample"], "asked again")
        await listed_jobs(screen)
        await screen.press("x")
        await screen.until(lambda: engine.asked == ["sample", "stop_sampling"], "stopped")
        engine.obey(13)
        await screen.sees("sampling of run-02  stopped")
        assert screen.app.session.is_live
        assert run.id == "run-02"
