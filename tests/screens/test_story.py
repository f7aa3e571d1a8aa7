"""A run told by its journal: from the start, piece by piece, and with a hole in what was heard."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from screens.shell import live_run as story_module
from screens.shell.live_run import Story
from tests.runs import journals
from tests.runs.journals import KINDS, loss_at, run_of
from tests.screens.scripted import ScriptedEngine
from workbench.recipe.schema import Recipe
from workbench.runs import journal as journal_module
from workbench.runs import journal_sample as glance
from workbench.runs.journal import JournalReader, JournalWriter
from workbench.storage.paths import Home


def lived(root: Path) -> ScriptedEngine:
    engine = ScriptedEngine(Home(root))
    engine.begin(Recipe(), max_steps=10)
    engine.phase("loading", 0.5, "half of it")
    engine.phase("preparing", base="nf4", trainable_parameters=4_884_480)
    engine.phase("training", 0.0, max_steps=10)
    engine.evaluate(0, 3.0, 20.1)
    return engine


async def test_it_is_read_from_the_journal_alone(tmp_path: Path) -> None:
    engine = lived(tmp_path)
    for step in range(1, 11):
        engine.step(step, 3.0 - step / 5)
    engine.write("checkpoint", step=10, path="checkpoint-10")
    engine.write("warning", message="2 records are left out")
    engine.evaluate(10, 1.0, 2.7)
    engine.finish(step=10)
    assert engine.run is not None
    story = Story(engine.run)
    await story.catch_up()
    assert story.train.points() == [(step, 3.0 - step / 5) for step in range(1, 11)]
    assert story.eval.points() == [(0, 3.0), (10, 1.0)]
    assert (story.summary.state, story.summary.step, story.checkpoint) == ("finished", 10, 10)
    assert story.summary.perplexity == {"base": 20.1, "tuned": 2.7}
    assert (story.facts["base"], story.facts["trainable_parameters"]) == ("nf4", 4_884_480)
    assert story.notices == ["2 records are left out"]
    assert story.is_over


async def test_what_was_heard_twice_counts_once_and_a_hole_is_read(tmp_path: Path) -> None:
    engine = lived(tmp_path)
    assert engine.run is not None
    story = Story(engine.run)
    await story.catch_up()
    heard = JournalReader(engine.run.journal)
    heard.read()
    engine.step(1, 2.0)
    first = heard.read()
    await story.add(first)
    await story.add(first)
    assert story.train.points() == [(1, 2.0)]
    engine.step(2, 1.9)
    heard.read()  # nobody tells the story of step 2
    engine.step(3, 1.8)
    await story.add(heard.read())
    assert story.train.points() == [(1, 2.0), (2, 1.9), (3, 1.8)]


async def test_a_loss_that_is_no_number_is_kept_as_the_newest_figure_and_not_drawn(tmp_path: Path) -> None:
    engine = lived(tmp_path)
    engine.step(1, 2.0)
    engine.step(2, float("nan"))
    assert engine.run is not None
    story = Story(engine.run)
    await story.catch_up()
    assert story.train.points() == [(1, 2.0)]
    assert story.step["loss"] == "nan"


async def test_a_run_that_was_resumed_is_told_as_if_it_had_never_been_further(tmp_path: Path) -> None:
    engine = lived(tmp_path)
    assert engine.run is not None
    for step in range(1, 8):
        engine.step(step, 3.0 - step / 5)
    engine.evaluate(4, 2.0, 7.4, best=True)
    engine.evaluate(7, 1.5, 4.5, best=True)
    engine.sample(6, [("Who?", "Nobody.")])
    engine.finish("stopped", step=7)
    engine.goes_on(5, "checkpoint-5")
    story = Story(engine.run)
    await story.catch_up()
    assert story.train.points() == [(step, 3.0 - step / 5) for step in range(1, 6)]
    assert story.eval.points() == [(0, 3.0), (4, 2.0)]
    assert story.best is not None
    assert (story.best.step, story.checkpoint, story.samples, story.ended) == (4, 5, [], {})
    assert not story.is_over
    for step in range(6, 11):
        engine.step(step, 1.0)
    engine.evaluate(10, 3.5, 33.1)
    engine.finish(step=10)
    await story.catch_up()
    assert story.train.points()[4:] == [(5, 2.0), *((step, 1.0) for step in range(6, 11))]
    assert (story.best.step, story.evaluations_since_best) == (4, 1)
    assert story.is_over


async def test_what_was_asked_of_it_and_why_it_stands_still(tmp_path: Path) -> None:
    engine = lived(tmp_path)
    assert engine.run is not None
    story = Story(engine.run)
    engine.write("control", action="pause", step=3)
    engine.write("paused", step=3, reason="Paused; the model stays in memory.", release=False)
    engine.sample(3, [("Who?", "The mate.")])
    engine.write("hint", message="The loss does not fall.")
    await story.catch_up()
    assert story.done is not None
    assert story.paused is not None
    assert (story.done["action"], story.paused["step"]) == ("pause", 3)
    assert story.samples[0]["replies"] == [{"prompt": "Who?", "reply": "The mate."}]
    assert story.notices == ["The loss does not fall."]
    engine.write("resumed", step=3)
    await story.catch_up()
    assert story.paused is None


def test_a_journal_is_read_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        for number in range(100):
            journal.write("note", number=number, long="x" * (5000 if number == 50 else 10))
    reader = JournalReader(path)
    blocks = []
    while events := reader.read(1000):
        blocks.append(events)
    assert [event["number"] for block in blocks for event in block] == list(range(100))
    assert len(blocks) > 5
    assert reader.read(1000) == []


async def test_tokens_and_seconds_of_each_step_are_kept_without_what_was_trained_twice(tmp_path: Path) -> None:
    engine = lived(tmp_path)
    for step in (1, 2, 3):
        engine.step(step, 2.0, seconds=0.5)
    engine.die()
    engine.running = True
    engine.goes_on(2)
    engine.step(3, 1.5, seconds=0.25)
    assert engine.run is not None
    story = Story(engine.run)
    await story.catch_up()
    assert story.tokens.points() == [(1, 1500), (2, 3000), (3, 4500)]
    assert story.clock.points() == [(1, 0.5), (2, 1.0), (3, 1.25)]


def make_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """From some 20 kB on, a journal is a long one."""
    for name, small in (("LONG", 20_000), ("_HEAD", 2_000), ("_TAIL", 16_000), ("_AT_LEAST", 1_000), ("PLACES", 20)):
        monkeypatch.setattr(glance, name, small)
    monkeypatch.setattr(journal_module, "BLOCK", 10_000)
    monkeypatch.setattr(story_module, "_SECONDS_BETWEEN_LOOKS", 0.0)


def told(story: Story) -> dict[str, object]:
    """All that a story tells."""
    curves = ("train", "eval", "tokens", "clock")
    told = {name: value for name, value in vars(story).items() if name not in ("_reader", "_reading", *curves)}
    return told | {name: vars(getattr(story, name)) for name in curves}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_long_journal_is_told_at_a_glance_and_then_exactly(
    tmp_path: Path, kind: Callable[[JournalWriter], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path, kind)
    at_once = Story(run)
    await at_once.catch_up()
    make_long(monkeypatch)
    story, shares = Story(run), []

    def look() -> None:
        shares.append(story.share)
        if not story.is_rough:
            return
        assert story.train.points() == [(x, loss_at(int(x))) for x, _ in story.train.points()]
        assert all(loss == loss_at(int(step)) for step, loss in story.eval.points())
        assert story.step == at_once.step
        assert (story.seq, story.started, story.ended) == (at_once.seq, at_once.started, at_once.ended)
        assert story.error == at_once.error or story.summary.is_open
        assert story.train.last == at_once.train.last
        assert story.tokens.last == at_once.tokens.last
        assert story.clock.last == (pytest.approx(at_once.clock.last, rel=0.01) if at_once.clock else None)

    await story.catch_up(look)
    if run.journal.stat().st_size > 20_000:
        assert len(shares) > 5
        assert shares == sorted(shares)
    assert told(story) == told(at_once)
    with JournalWriter(run.journal) as journal:
        journals.steps(journal, 5001, 5002)
    await story.catch_up()
    assert story.train.last == (5002, loss_at(5002))


async def test_a_run_goes_on_while_its_long_journal_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_long(monkeypatch)
    run = run_of(tmp_path, journals.alive)
    story, heard, seen = Story(run), JournalReader.of_what_comes(run.journal), []

    async def goes_on() -> None:
        step = story.summary.step + 1
        with JournalWriter(run.journal) as journal:
            journals.steps(journal, step, step)
        await story.add(heard.read())
        seen.append((story.is_rough, story.summary.step == step, story.train.last == (step, loss_at(step))))

    waiting: list[object] = []
    await story.add([{"event": "step", "seq": 99_999, "step": 1}])  # not worth to wait for: it is read below
    assert story.seq == -1
    await story.catch_up(lambda: waiting.append(asyncio.create_task(goes_on())))
    assert len(seen) > 5
    assert set(seen[:-1]) == {(True, True, True)}
    await goes_on()
    exact = Story(run)
    await exact.catch_up()
    assert not story.is_rough
    assert told(story) == told(exact)
