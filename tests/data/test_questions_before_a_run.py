"""Replies lost to the cut: a run asks first, tells it, counts every record, and never starts with nothing to train."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.command_line import call, facts
from tests.journals import read_events
from workbench.commands.data_questions import ask_about_data
from workbench.data.facts import DataFacts
from workbench.engine.client.protocol import FactsRequest
from workbench.engine.training.thread import TrainingThread
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, to_yaml
from workbench.runs.folder import create_run, summarise
from workbench.storage.paths import Home

SHORT = {"instruction": "Why?", "response": "Aye, for the sea is wide."}
# The question alone is longer than the records may be.
LONG = {"instruction": "Why does the grey sea roll? " * 30, "response": "Aye."}
UNUSABLE = {"instruction": "Why?", "response": ""}


def small(recipe: Recipe, path: Path, records: list[dict[str, str]], **changes: Any) -> Recipe:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return edit(recipe, {"data.source": str(path), "training.max_steps": 2, "data.eval_fraction": 0.2, **changes})


def trained(home: Path, recipe: Recipe) -> tuple[TrainingThread, list[dict[str, Any]]]:
    """A run to its end, and its journal."""
    run = create_run(Home(home), recipe)
    thread = TrainingThread(Home(home), run, recipe)
    thread.start()
    thread.join(timeout=300)
    assert not thread.is_alive()
    return thread, list(read_events(run.journal))


def test_every_record_is_counted_in_the_journal_and_lost_replies_are_a_warning(recipe: Recipe, tmp_path: Path) -> None:
    own = small(recipe, tmp_path / "own.jsonl", [SHORT] * 10 + [LONG] * 3 + [UNUSABLE] * 2)
    thread, events = trained(tmp_path / "home", own)
    assert thread.error is None
    (counts,) = [event["counts"] for event in events if "counts" in event]
    assert (counts["train_records"], counts["eval_records"]) == (8, 2)
    assert (counts["lost_reply_records"], counts["skipped"]) == (3, 2)
    assert counts["skipped_reasons"] == {"column response is empty": 2}
    assert counts["tokens"]["total"] == counts["tokens"]["trained"] + counts["tokens"]["masked"]
    assert counts["tokens"]["cut"] > 0
    warnings = [event["message"] for event in events if event["event"] == "warning"]
    assert "3 records of 13 (23%) lose the whole response to truncation at 64 tokens" in warnings[0]
    assert "Skipped: 2 records (column response is empty: 2)." in warnings
    assert any("cut off the whole response: 3 records" in warning for warning in warnings)


@pytest.mark.parametrize(("records", "kind"), [([LONG] * 4, "data_no_tokens"), ([UNUSABLE] * 4, "data_no_tokens")])
def test_a_run_with_nothing_to_train_never_starts(
    records: list[dict[str, str]], kind: str, recipe: Recipe, tmp_path: Path
) -> None:
    thread, events = trained(tmp_path / "home", small(recipe, tmp_path / "own.jsonl", records))
    assert thread.error is not None
    assert thread.error.kind == kind
    assert not [event for event in events if event["event"] in ("step", "eval")]
    assert events[-1]["event"] == "run_ended"
    assert not thread.run_folder.adapter.exists()
    assert summarise(thread.run_folder).state == "failed"


class _Engine:
    """Says of every recipe's data what it was told to say."""

    def __init__(self, *answers: Progress | DataFacts | WorkbenchError) -> None:
        self.answers = answers

    async def facts(self, request: FactsRequest) -> AsyncIterator[Progress | DataFacts]:
        assert request.fetch
        for answer in self.answers:
            if isinstance(answer, WorkbenchError):
                raise answer
            yield answer


def counted(lost: int, kept: int) -> DataFacts:
    return DataFacts("prompt", "", "model", 64, records=kept, lost_reply=lost, exact=False)


async def test_the_command_refuses_where_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    engine: Any = _Engine(Progress(phase="loading the tokenizer"), counted(lost=11, kept=89))
    with pytest.raises(WorkbenchError) as refused:
        await ask_about_data(engine, Recipe())
    assert refused.value.kind == "data_question"
    assert "11 records of 100 (11%)" in refused.value.message
    assert "--force" in refused.value.cure


@pytest.mark.parametrize("answer", [True, False])
async def test_the_command_asks_a_person(
    answer: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def confirm(text: str, **_: Any) -> bool:
        asked.append(text)
        return answer

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", confirm)
    engine: Any = _Engine(counted(lost=11, kept=89))
    if answer:
        await ask_about_data(engine, Recipe())
    else:
        with pytest.raises(WorkbenchError, match="lose the whole response"):
            await ask_about_data(engine, Recipe())
    assert asked == ["Start anyway?"]


@pytest.mark.parametrize(
    "engine", [_Engine(counted(lost=10, kept=90)), _Engine(WorkbenchError("Line 2 is broken.", "Mend it.")), _Engine()]
)
async def test_other_runs_start_unasked(engine: Any) -> None:
    await ask_about_data(engine, Recipe())


def test_a_run_by_command_that_loses_many_replies_is_refused_unless_forced(recipe: Recipe, tmp_path: Path) -> None:
    own = small(recipe, tmp_path / "own.jsonl", [SHORT] * 10 + [LONG] * 3)
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml(own), encoding="utf-8")

    home = Home(tmp_path / "home")
    try:
        refused = call(home, "train", file)
        assert refused.returncode == 1
        assert "3 records of 13 (23%) lose the whole response" in " ".join(refused.stderr.split())
        assert "--force" in refused.stderr
        assert not list((tmp_path / "home" / "runs").glob("*/journal.jsonl"))
        events = facts(home, "train", file, "--force")
        assert events[-1]["reason"] == "finished"
        warned = [event["message"] for event in events if event["event"] == "warning"]
        assert any("lose the whole response" in message for message in warned)
    finally:
        call(home, "engine", "stop", "--force")
