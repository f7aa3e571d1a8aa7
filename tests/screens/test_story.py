"""A run told by its journal: from the start, piece by piece, and with a hole in what was heard."""

from pathlib import Path

from screens.story import Story
from tests.screens.scripted import ScriptedEngine
from workbench.paths import Home
from workbench.recipe import Recipe
from workbench.runs.journal import JournalReader, JournalWriter


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
