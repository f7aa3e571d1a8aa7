"""Work in a process of its own: its answers, its failures, its end."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from workbench.errors import WorkbenchError
from workbench.models.child import run_in_child
from workbench.progress import Progress

pytestmark = pytest.mark.usefixtures("fresh_processes")


@pytest.fixture(autouse=True)
def _work_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def run(function: str, **arguments: object) -> tuple[object, list[Progress]]:
    seen: list[Progress] = []
    return run_in_child(f"child_work:{function}", arguments, seen.append, lambda: False, result=object), seen


def failure(function: str) -> WorkbenchError:
    with pytest.raises(WorkbenchError) as caught:
        run(function)
    return caught.value


def wait_until_gone(pid: int) -> None:
    end = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.05)


def test_arguments_go_in_and_the_result_comes_out(capfd: pytest.CaptureFixture[str]) -> None:
    result, seen = run("add", left=2, right=3)
    assert result == 5
    assert seen == [Progress(phase="adding", fraction=0.5, detail="half")]
    assert capfd.readouterr() == ("", "")


def test_a_sentence_for_the_user_comes_through() -> None:
    assert failure("refuse").as_json() == {"message": "No ünïcode here.", "cure": "Write plainly.", "kind": "odd"}


def test_other_errors_are_explained() -> None:
    assert failure("fail").kind == "out_of_memory"


def test_a_crash_in_native_code_is_survived() -> None:
    error = failure("crash")
    assert error.kind == "crashed"
    assert "SIGSEGV" in error.message


def test_a_child_that_leaves_without_an_answer() -> None:
    error = failure("leave")
    assert error.message.startswith("The helper process ended with code 7")


def test_a_file_named_like_a_library_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "tqdm", "pydantic", "workbench"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    assert run("add", left=1, right=1)[0] == 2


def test_libraries_bars_become_progress() -> None:
    seen = run("draw_bars")[1]
    counting = [step.fraction for step in seen if step.phase == "counting"]
    assert counting[-1] == 1.0
    assert counting == sorted(counting)
    assert [step.detail for step in seen if step.phase == "downloading"][-1] == "3 of 4 MB"
    assert [step.fraction for step in seen if step.phase == "downloading"][-1] == 0.75


def test_cancelling_ends_the_child(tmp_path: Path) -> None:
    seen: list[Progress] = []
    file = tmp_path / "pid"
    with pytest.raises(WorkbenchError) as caught:
        run_in_child("child_work:wait", {"file": str(file)}, seen.append, lambda: bool(seen), result=object)
    assert caught.value.kind == "cancelled"
    wait_until_gone(int(file.read_text()))


def test_a_killed_parent_takes_the_child_with_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = (
        "from workbench.models.child import run_in_child;"
        f"run_in_child('child_work:wait', {{'file': {str(file)!r}}}, lambda step: None, lambda: False, result=object)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 20
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < end, "the child did not start"
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    wait_until_gone(int(file.read_text()))
