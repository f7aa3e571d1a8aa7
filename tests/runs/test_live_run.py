"""A run told by its journal: from the start, piece by piece, and with a hole in what was heard."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.journals import JournalWriter
from tests.runs import journals
from tests.runs.journals import KINDS, loss_at, run_of
from tests.screens.scripted import ScriptedEngine
from workbench.recipe.schema import Recipe
from workbench.runs import journal as journal_module
from workbench.runs import journal_sample
from workbench.runs import live_run as live_run_module
from workbench.runs.journal import JournalReader
from workbench.runs.live_run import LiveRun
from workbench.storage.paths import Home


def lived(root: Path, *, may_die: bool = False) -> ScriptedEngine:
    engine = ScriptedEngine(Home(root))
    if may_die:
        engine.embody()
    engine.begin(Recipe(), max_steps=10)
    engine.phase("loading", 0.5, "half of it")
    engine.phase("preparing", base="nf4", trainable_parameters=4_884_480)
    engine.phase("training", 0.0, max_steps=10)
    engine.evaluated(0, 3.0, 20.1)
    return engine


async def test_it_is_read_from_the_journal_alone(tmp_path: Path) -> None:
    engine = lived(tmp_path)
    for step in range(1, 11):
        engine.step(step, 3.0 - step / 5)
    engine.write("checkpoint", step=10, path="checkpoint-10")
    engine.write("warning", message="2 records are left out")
    engine.evaluated(10, 1.0, 2.7)
    engine.finish(step=10)
    assert engine.run is not None
    live = LiveRun(engine.run)
    await live.catch_up()
    assert live.replay.curves.train.points() == [(step, 3.0 - step / 5) for step in range(1, 11)]
    assert live.replay.curves.held_out.points() == [(0, 3.0), (10, 1.0)]
    assert (live.replay.summary.state, live.replay.summary.step, live.replay.checkpoint) == ("finished", 10, 10)
    assert live.replay.summary.perplexity == {"base": 20.1, "tuned": 2.7}
    assert (live.replay.facts.base, live.replay.facts.trainable_parameters) == ("nf4", 4_884_480)
    assert live.replay.notices == ["2 records are left out"]
    assert live.replay.is_over


async def test_a_loss_that_is_no_number_is_kept_as_the_newest_figure_and_not_drawn(tmp_path: Path) -> None:
    engine = lived(tmp_path)
    engine.step(1, 2.0)
    engine.step(2, float("nan"))
    assert engine.run is not None
    live = LiveRun(engine.run)
    await live.catch_up()
    assert live.replay.curves.train.points() == [(1, 2.0)]
    assert live.replay.step.loss == "nan"


async def test_a_run_that_was_resumed_is_told_as_if_it_had_never_been_further(tmp_path: Path) -> None:
    engine = lived(tmp_path)
    assert engine.run is not None
    for step in range(1, 8):
        engine.step(step, 3.0 - step / 5)
    engine.evaluated(4, 2.0, 7.4, best=True)
    engine.evaluated(7, 1.5, 4.5, best=True)
    engine.sample(6, [("Who?", "Nobody.")])
    engine.finish("stopped", step=7)
    engine.goes_on(5, "checkpoint-5")
    live = LiveRun(engine.run)
    await live.catch_up()
    assert live.replay.curves.train.points() == [(step, 3.0 - step / 5) for step in range(1, 6)]
    assert live.replay.curves.held_out.points() == [(0, 3.0), (4, 2.0)]
    assert live.replay.best is not None
    assert (live.replay.best.step, live.replay.checkpoint, live.replay.samples, live.replay.ended) == (4, 5, [], None)
    assert not live.replay.is_over
    for step in range(6, 11):
        engine.step(step, 1.0)
    engine.evaluated(10, 3.5, 33.1)
    engine.finish(step=10)
    await live.catch_up()
    assert live.replay.curves.train.points()[4:] == [(5, 2.0), *((step, 1.0) for step in range(6, 11))]
    assert (live.replay.best.step, live.replay.evaluations_since_best) == (4, 1)
    assert live.replay.is_over


async def test_what_was_asked_of_it_and_why_it_stands_still(tmp_path: Path) -> None:
    engine = lived(tmp_path)
    assert engine.run is not None
    live = LiveRun(engine.run)
    engine.write("control", action="pause", step=3)
    engine.write("paused", step=3, reason="Paused; model kept in memory.", release=False)
    engine.sample(3, [("Who?", "The mate.")])
    engine.write("hint", message="The loss does not fall.")
    await live.catch_up()
    assert live.replay.last_request is not None
    assert live.replay.paused is not None
    assert (live.replay.last_request.action, live.replay.paused.step) == ("pause", 3)
    assert live.replay.samples[0].replies == [{"prompt": "Who?", "reply": "The mate."}]
    assert live.replay.notices == ["The loss does not fall."]
    engine.write("resumed", step=3)
    await live.catch_up()
    assert live.replay.paused is None


def test_a_journal_is_read_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        for number in range(100):
            journal.write("note", number=number, long="x" * (5000 if number == 50 else 10))
    reader = JournalReader(path)
    blocks = []
    while events := reader.read(1000):
        blocks.append(events)
    assert [event.fields["number"] for block in blocks for event in block] == list(range(100))
    assert len(blocks) > 5
    assert reader.read(1000) == []


async def test_tokens_and_seconds_of_each_step_are_kept_without_what_was_trained_twice(tmp_path: Path) -> None:
    engine = lived(tmp_path, may_die=True)
    for step in (1, 2, 3):
        engine.step(step, 2.0, seconds=0.5)
    engine.die()
    engine.running = True
    engine.goes_on(2)
    engine.step(3, 1.5, seconds=0.25)
    assert engine.run is not None
    live = LiveRun(engine.run)
    await live.catch_up()
    assert live.replay.curves.tokens.points() == [(1, 1500), (2, 3000), (3, 4500)]
    assert live.replay.curves.seconds.points() == [(1, 0.5), (2, 1.0), (3, 1.25)]


def make_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """From some 20 kB on, a journal is a long one."""
    for name, small in (("LONG", 20_000), ("_HEAD", 2_000), ("_TAIL", 16_000), ("_AT_LEAST", 1_000), ("PLACES", 20)):
        monkeypatch.setattr(journal_sample, name, small)
    monkeypatch.setattr(journal_module, "BLOCK", 10_000)
    monkeypatch.setattr(live_run_module, "_SECONDS_BETWEEN_UPDATES", 0.0)


def told(live: LiveRun) -> dict[str, object]:
    """The whole state of a replay."""
    curves = ("train", "held_out", "tokens", "seconds")
    state = {name: value for name, value in vars(live.replay).items() if name not in ("_fold", "curve", "curves")}
    return state | {name: vars(getattr(live.replay.curves, name)) for name in curves}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_long_journal_is_told_at_a_glance_and_then_exactly(
    tmp_path: Path, kind: Callable[[JournalWriter], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path, kind)
    at_once = LiveRun(run)
    await at_once.catch_up()
    make_long(monkeypatch)
    live, shares = LiveRun(run), []

    def look() -> None:
        shares.append(live.replay.share_read)
        if not live.replay.is_partial:
            return
        assert live.replay.curves.train.points() == [(x, loss_at(int(x))) for x, _ in live.replay.curves.train.points()]
        assert all(loss == loss_at(int(step)) for step, loss in live.replay.curves.held_out.points())
        assert live.replay.step == at_once.replay.step
        assert (live.replay.seq, live.replay.started, live.replay.ended) == (
            at_once.replay.seq,
            at_once.replay.started,
            at_once.replay.ended,
        )
        assert live.replay.error == at_once.replay.error or live.replay.summary.is_state_unknown
        assert live.replay.curves.train.last == at_once.replay.curves.train.last
        assert live.replay.curves.tokens.last == at_once.replay.curves.tokens.last
        assert live.replay.curves.seconds.last == (
            pytest.approx(at_once.replay.curves.seconds.last, rel=0.01) if at_once.replay.curves.seconds else None
        )

    await live.catch_up(look)
    if run.journal.stat().st_size > 20_000:
        # How often it is shown in between depends on how fast the thread reads.
        assert len(shares) > 1
        assert shares[0] == 0.0
        assert shares == sorted(shares)
    assert told(live) == told(at_once)
    with JournalWriter(run.journal) as journal:
        journals.steps(journal, 5001, 5002)
    await live.catch_up()
    assert live.replay.curves.train.last == (5002, loss_at(5002))


async def test_a_run_continues_while_its_long_journal_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_long(monkeypatch)
    run = run_of(tmp_path, journals.alive)
    live, seen, written = LiveRun(run), [], []

    def continues() -> None:
        if written:
            last = live.replay.curves.train.last
            seen.append(
                (
                    live.replay.is_partial,
                    live.replay.summary.step == written[-1],
                    last is not None and last[0] == written[-1],
                )
            )
        written.append(live.replay.summary.step + 1)
        with JournalWriter(run.journal) as journal:
            journals.steps(journal, written[-1], written[-1])

    await live.catch_up(continues)
    assert len(seen) > 5
    assert set(seen) == {(True, True, True)}
    await live.catch_up()
    exact = LiveRun(run)
    await exact.catch_up()
    assert not live.replay.is_partial
    assert told(live) == told(exact)
