"""Runs thrown away and brought back, whole and under their own id."""

import subprocess
import sys

import pytest

from tests.runs.told import begin, finished, take_steps, writer_of
from workbench.errors import WorkbenchError
from workbench.runs.folder import all_runs, create_run, find_run
from workbench.runs.journal import JournalReader
from workbench.runs.library.naming import rename_run
from workbench.runs.library.trash import delete_run, empty_trash, restore_run, trashed_runs
from workbench.storage.paths import Home


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_goes_and_comes_back_as_it_was(home):
    run = finished(home)
    rename_run(home, run, "dear one")
    (run.path / "chats").mkdir()
    (run.path / "chats" / "1.json").write_text("{}")
    before = files_of(run.path)
    gone = delete_run(home, run)
    assert (gone.id, gone.name, gone.link_target) == ("run-01", "dear one", None)
    assert gone.bytes == sum(map(len, before.values()))
    assert not all_runs(home)
    assert files_of(gone.path) == before
    assert restore_run(home, "dear one").path == run.path
    assert files_of(run.path) == before
    assert trashed_runs(home) == []


def test_an_id_in_the_trash_is_not_given_again(home):
    first, second = finished(home), finished(home)
    delete_run(home, second)
    third = begin(home)
    assert third.id == "run-03"
    delete_run(home, first)
    delete_run(home, third)
    assert begin(home).id == "run-04"
    assert {restore_run(home, name).id for name in ("run-01", "run-02", "run-03")} == {"run-01", "run-02", "run-03"}


def test_a_live_run_is_refused_paused_too(home):
    run = begin(home)
    with writer_of(run) as journal:
        take_steps(journal, [1])
        journal.write("paused", step=1, reason="Paused; model kept in memory.", release=False)
        with pytest.raises(WorkbenchError, match="live") as caught:
            delete_run(home, run)
        assert caught.value.kind == "run_busy"
    assert run.journal.is_file()


def test_a_run_whose_writer_just_opens_the_journal_is_refused(home):
    run = finished(home)
    code = "import sys; from pathlib import Path; from workbench.runs.journal import JournalWriter\n"
    code += "JournalWriter(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(run.journal)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "open\n"
    with pytest.raises(WorkbenchError, match="live"):
        delete_run(home, run)
    other.communicate("")
    delete_run(home, run)


def test_a_run_that_the_engine_is_about_to_begin_is_refused(home):
    run = begin(home)
    with pytest.raises(WorkbenchError, match="live"):
        delete_run(home, run, live_run=run.id)
    delete_run(home, run)


def test_of_a_run_elsewhere_only_the_link_moves(home, tmp_path):
    run = create_run(
        home, finished(home).recipe().model_copy(update={"output": _elsewhere(home, tmp_path / "big disk")})
    )
    with writer_of(run) as journal:
        take_steps(journal, [1])
        journal.write("run_ended", reason="finished")
    before = files_of(run.path)
    gone = delete_run(home, find_run(home, run.id))
    assert (gone.link_target, gone.bytes) == (run.path, 0)
    assert [one.id for one in all_runs(home)] == ["run-01"]
    assert files_of(run.path) == before
    assert restore_run(home, run.id).path.resolve() == run.path
    delete_run(home, run)
    empty_trash(home)
    assert files_of(run.path) == before
    assert begin(home).id != run.id or not run.path.parent.samefile(home.runs)


def _elsewhere(home, folder):
    from workbench.recipe.sections.output import OutputSection

    return OutputSection(name="run", dir=str(folder))


def test_a_folder_that_is_no_run_of_the_home_is_refused(home, tmp_path):
    finished(home)
    stray = finished(Home(tmp_path / "another home"))
    with pytest.raises(WorkbenchError, match="not in this home's runs folder"):
        delete_run(home, stray)
    assert files_of(stray.path)


def test_nothing_is_put_in_the_place_of_another(home):
    run = finished(home)
    delete_run(home, run)
    run.path.mkdir()
    (run.path / "recipe.yaml").write_text("{}")
    with pytest.raises(WorkbenchError, match="already has a run-01"):
        restore_run(home, "run-01")
    with pytest.raises(WorkbenchError, match="The trash already has a "):
        delete_run(home, run)
    assert files_of(home.trash / "run-01")
    assert files_of(run.path)


def test_what_is_not_there_is_named(home):
    with pytest.raises(WorkbenchError, match=r"no run ghost in the trash. The trash is empty"):
        restore_run(home, "ghost")
    for _ in range(2):
        delete_run(home, finished(home))
    with pytest.raises(WorkbenchError, match="matches 2 runs"):
        restore_run(home, "run")
    with pytest.raises(WorkbenchError, match="It contains: run-02, run-01"):
        restore_run(home, "ghost")


def test_emptied_it_holds_nothing_and_what_a_link_leads_to_stays(home, tmp_path):
    run = finished(home)
    precious = tmp_path / "precious"
    precious.write_text("x")
    (run.path / "link").symlink_to(precious)
    delete_run(home, run)
    assert [one.id for one in empty_trash(home)] == ["run-01"]
    assert list(home.trash.iterdir()) == []
    assert precious.read_text() == "x"


def test_a_reader_that_follows_a_run_into_the_trash_reads_nothing(home):
    run = finished(home)
    reader = JournalReader(run.journal)
    delete_run(home, run)
    assert reader.read() == []
