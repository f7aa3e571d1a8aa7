"""Run folders: made without a clash, found by any name, summed up from the journal alone."""

import asyncio
import os
import subprocess
import sys

import psutil
import pytest

from tests.journals import JournalWriter
from workbench.errors import WorkbenchError
from workbench.recipe.text import from_yaml, parse
from workbench.runs import summary as summary_module
from workbench.runs.folder import all_runs, create_run, find_run, summarise
from workbench.runs.journal import last_seq
from workbench.runs.live_run import LiveRun
from workbench.storage.paths import Home


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def _recipe(name="pirate", **output):
    return parse({"output": {"name": name, **output}, "adapter": {"r": 4}})


def test_runs_are_numbered_and_keep_their_recipe(home):
    first, second = create_run(home, _recipe()), create_run(home, _recipe())
    assert (first.id, second.id) == ("pirate-01", "pirate-02")
    assert first.recipe() == _recipe()


@pytest.mark.parametrize("chosen", [True, False, None])
def test_auto_of_an_older_version_is_read_as_what_the_journal_says_was_chosen(home, chosen):
    run = create_run(home, _recipe())
    text = run.recipe_file.read_text().replace("torch_compile: false", "torch_compile: auto")
    run.recipe_file.write_text(text)
    if chosen is not None:
        with JournalWriter(run.journal) as journal:
            journal.write("phase", phase="preparing", chosen={"training.torch_compile": chosen})
    assert run.recipe().training.torch_compile is bool(chosen)
    with pytest.raises(WorkbenchError, match=r"training\.torch_compile: got 'auto'; expected true or false\."):
        from_yaml(text)


def test_a_number_is_not_used_again_after_the_hundredth(home):
    for number in (9, 99, 100):
        (home.runs / f"pirate-{number:02d}").mkdir(parents=True)
    assert create_run(home, _recipe()).id == "pirate-101"


def test_a_run_is_found_by_id_prefix_and_folder(home):
    run = create_run(home, _recipe())
    create_run(home, _recipe("quotes"))
    for name in (run.id, "pir", str(run.path)):
        assert find_run(home, name).path == run.path


def test_an_id_wins_over_the_runs_it_is_a_prefix_of(home):
    for _ in range(2):
        create_run(home, _recipe())
    (home.runs / "pirate-010").mkdir()
    (home.runs / "pirate-010" / "recipe.yaml").write_text("{}")
    assert find_run(home, "pirate-01").id == "pirate-01"
    with pytest.raises(WorkbenchError) as caught:
        find_run(home, "pirate")
    assert caught.value.kind == "run_ambiguous"
    with pytest.raises(WorkbenchError) as caught:
        find_run(home, "nobody")
    assert caught.value.kind == "run_not_found"


def test_a_run_elsewhere_is_in_the_history_too(home, tmp_path):
    run = create_run(home, _recipe(dir=str(tmp_path / "big disk")))
    assert run.path.parent == tmp_path / "big disk"
    assert [found.id for found in all_runs(home)] == [run.id]


def test_a_run_elsewhere_never_shares_its_id_with_one_of_the_home(home, tmp_path):
    here = create_run(home, _recipe())
    there = create_run(home, _recipe(dir=str(tmp_path / "big disk")))
    assert (here.id, there.id) == ("pirate-01", "pirate-02")
    assert find_run(home, there.id).path.resolve() == there.path
    assert create_run(home, _recipe()).id == "pirate-03"


def test_a_folder_that_cannot_be_made_is_a_sentence(home, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbenchError, match="Cannot create a run folder"):
        create_run(home, _recipe(dir=str(tmp_path / "file")))


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", ".hidden", "x" * 70])
def test_a_name_cannot_leave_its_folder(name):
    with pytest.raises(WorkbenchError):
        _recipe(name)


def _start(journal, pid, started):
    journal.write("run_started", model="tiny", pid=pid, process_started=started)


def test_the_summary_follows_the_journal(home):
    run = create_run(home, _recipe())
    assert summarise(run).state == "new"
    with JournalWriter(run.journal) as journal:
        _start(journal, os.getpid(), psutil.Process().create_time())
        journal.write("eval", step=0, loss=3.0, perplexity=20.0)
        journal.write("step", step=1, max_steps=2, loss=2.0, tokens=100, vram=None)
        assert summarise(run).state == "running"
        journal.write("step", step=2, max_steps=2, loss=1.5, tokens=200, vram={"peak": 7})
        journal.write("eval", step=2, loss=2.0, perplexity=7.4)
        journal.write("run_ended", reason="finished", adapter="a")
    summary = summarise(run)
    assert (summary.state, summary.step, summary.loss, summary.tokens) == ("finished", 2, 1.5, 200)
    assert summary.perplexity == {"base": 20.0, "tuned": 7.4}
    assert summary.peak_vram == 7


def test_a_run_whose_process_is_gone_was_interrupted(home):
    run = create_run(home, _recipe())
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(process.pid).create_time()
    with JournalWriter(run.journal) as journal:
        _start(journal, process.pid, started)
    assert summarise(run).state == "running"
    process.communicate(b"\n")
    assert summarise(run).state == "interrupted"


def test_what_a_process_wrote_just_before_its_end_counts(home, monkeypatch):
    """Its end is noticed after its journal was read, and before the end of its run was."""
    for read in (summarise, _read_live):
        run = create_run(home, _recipe())
        with JournalWriter(run.journal) as journal:
            journal.write("run_started", model="m", pid=os.getpid(), process_started=psutil.Process().create_time())

            def ends(writer, journal=journal):
                if last_seq(journal.path) == 0:
                    journal.write("run_ended", reason="stopped")
                return False

            monkeypatch.setattr(summary_module, "_is_alive", ends)
            assert read(run).state == "stopped"


def _read_live(run):
    live = LiveRun(run)
    asyncio.run(live.catch_up())
    return live.replay.summary


def test_a_process_id_used_again_does_not_bring_a_run_back(home):
    run = create_run(home, _recipe())
    with JournalWriter(run.journal) as journal:
        _start(journal, os.getpid(), psutil.Process().create_time() - 1000)
    assert summarise(run).state == "interrupted"


def test_a_failed_run_says_why_and_what_to_do(home):
    run = create_run(home, _recipe())
    with JournalWriter(run.journal) as journal:
        _start(journal, os.getpid(), psutil.Process().create_time())
        journal.write("error", kind="x", message="It broke.", cure="Mend it.")
        journal.write("run_ended", reason="error")
    summary = summarise(run)
    assert (summary.state, summary.reason, summary.cure) == ("failed", "It broke.", "Mend it.")
