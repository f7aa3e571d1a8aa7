"""``evaluate`` and ``report`` as a person calls them, through a real engine."""

import asyncio
import json
import os
import signal

import pytest

from tests.command_line import call, start
from workbench.engine.client.process import find_engine
from workbench.evaluation.result import evaluations, read_evaluation


@pytest.fixture(scope="module", autouse=True)
def engine_ends(home):
    yield
    call(home, "engine", "stop", "--force")


def test_json_is_what_is_kept(home, run, unseen):
    done = call(
        home, "evaluate", run.id, "--data", unseen, "--replies", 2, "--max-tokens", 8, "--checkpoints", "--json"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (file,) = evaluations(run)
    assert told["file"] == str(file)
    kept = read_evaluation(file)
    assert told["judged"] == kept.model_dump(mode="json")["judged"]
    assert [one["name"] for one in told["judged"]] == ["base", f"{run.id}@20", f"{run.id}@30", run.id]
    assert told["records"] == 7
    assert (run.path / "report.md").is_file()


def test_a_person_reads_figures_and_replies(home, run):
    done = call(home, "evaluate", run.id, "--prompt", "Who [bold]are[/] you?", "--replies", 1, "--max-tokens", 8)
    assert done.returncode == 0, done.stderr
    figures = read_evaluation(evaluations(run)[-1]).judged[1].figures
    assert (
        f"{figures.perplexity.value:.4g} ({figures.perplexity.low:.4g} to {figures.perplexity.high:.4g})" in done.stdout
    )
    assert f"{run.id} is better than the base: held-out perplexity" in done.stdout
    assert "6 held-out records" in done.stdout
    assert "Only 6 records" in done.stdout
    assert "Who [bold]are[/] you?" in done.stdout
    assert "reference: Aye, answer" in done.stdout
    assert str(run.path / "report.md") in done.stdout.replace("\n", "")


def test_report(home, run):
    for name in ("report.md", "report.json", "report.svg"):
        (run.path / name).unlink(missing_ok=True)
    done = call(home, "report", run.id)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(run.path / name) for name in ("report.md", "report.json", "report.svg")]
    told = json.loads(call(home, "report", run.id, "--json").stdout)
    assert told["run"] == run.id
    assert told["curve"]["training"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-run"], "There is no run no-such-run"),
        (["{run}", "--data", "missing.jsonl"], "No such file or folder: missing.jsonl"),
        (["{run}", "--adapters", "{run}@7"], "checkpoint-7"),
        (["{run}", "--set", "adapter.r=4"], "cannot change adapter.r"),
        (["{run}", "--set", "data.system=Hi"], "cannot change data.system"),
    ],
)
def test_mistakes_end_in_a_sentence(home, run, arguments, words):
    done = call(home, "evaluate", *(argument.format(run=run.id) for argument in arguments))
    assert done.returncode == 1
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


async def test_an_interrupt_ends_the_evaluation_in_the_engine_too(home, run, unseen, tmp_path):
    many = tmp_path / "many.jsonl"
    many.write_text(unseen.read_text() * 600)
    before = evaluations(run)
    process = start(home, "evaluate", run.id, "--data", many, "--records", 0, "--replies", 0)
    await _comes_to(home, "evaluating")
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    await _comes_to(home, "idle")
    assert evaluations(run) == before


async def _comes_to(home, state):
    """Wait until the engine is in a state."""
    async with asyncio.timeout(120):
        while (status := await find_engine(home)) is None or status.state != state:
            await asyncio.sleep(0.1)


async def test_the_app_asks_the_same_engine_and_ends_it_by_leaving(home, run, unseen, tmp_path):
    from contextlib import aclosing

    from workbench.engine.client.evaluation_request import evaluation_request
    from workbench.engine.client.home_engine import HomeEngine
    from workbench.progress import Progress

    many = tmp_path / "many.jsonl"
    many.write_text(unseen.read_text() * 600)
    engine = HomeEngine(home)
    await engine.ensure()
    try:
        async with aclosing(engine.evaluate(evaluation_request(run, str(unseen), replies=1))) as answers:
            *progress, last = [answer async for answer in answers]
        assert {answer.phase for answer in progress} >= {"evaluating", "replying"}
        assert read_evaluation(last.file).source == str(unseen)
        before = evaluations(run)
        async with aclosing(engine.evaluate(evaluation_request(run, str(many), records=0))) as answers:
            async for answer in answers:
                if isinstance(answer, Progress) and answer.phase == "evaluating":
                    break
        await _comes_to(home, "idle")
        assert evaluations(run) == before
    finally:
        await engine.close()
