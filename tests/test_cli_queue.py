"""``loraworkbench queue`` as a person calls it."""

import json
import time

import pytest

from tests.command_line import assert_a_sentence, call, facts
from workbench.engine.client.process import engine_pid
from workbench.planning.launch import Launch
from workbench.planning.queue import Queue
from workbench.recipe.text import edit, to_yaml
from workbench.runs.folder import all_runs, summarise
from workbench.storage.paths import Home


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    yield home
    call(home, "engine", "stop", "--now")


@pytest.fixture
def recipe_file(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(edit(recipe, {"training.max_steps": 3})), encoding="utf-8")
    return path


def until(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def waiting(home):
    return [entry.name for entry in Queue(home).read().waiting]


def test_a_sweep_is_shown_lined_up_held_and_changed_without_a_run(home, recipe_file):
    assert "The queue is empty" in call(home, "queue").stdout
    assert "on hold" in call(home, "queue", "hold").stdout
    assert engine_pid(home) is None
    over = ["--over", "adapter.r=2,4", "--over", "training.learning_rate=1e-3,1e-4"]
    (plan,) = facts(home, "queue", "sweep", recipe_file, *over, "--plan")
    assert [one["name"] for one in plan] == [
        "tiny-r2-lr0.001",
        "tiny-r2-lr0.0001",
        "tiny-r4-lr0.001",
        "tiny-r4-lr0.0001",
    ]
    assert all(one["peak_bytes"] > 0 and one["fit"] == "fits" for one in plan)
    alone = call(home, "queue", "sweep", recipe_file, "--over", "adapter.r=2", "--plan").stdout
    assert alone.startswith("1 run:")
    assert "GiB, fits" in alone
    assert waiting(home) == []
    done = call(home, "queue", "sweep", recipe_file, *over)
    assert "4 runs:" in done.stdout
    assert "GiB, fits" in done.stdout
    assert "adapter.r 2 → 4" in done.stdout
    assert waiting(home) == [one["name"] for one in plan]
    call(home, "queue", "move", "4", "1")
    call(home, "queue", "remove", "1", "2")
    assert waiting(home) == ["tiny-r4-lr0.0001", "tiny-r4-lr0.001"]
    call(home, "queue", "replace", "3", "--set", "output.name=other", "--set", "adapter.r=16")
    shown = call(home, "queue", "show", "3").stdout
    assert "name: other" in shown
    assert "r: 16" in shown
    assert_a_sentence(call(home, "queue", "remove", "17"), "There is no queued entry 17", "loraworkbench queue")
    assert_a_sentence(call(home, "queue", "replace", "3"), "Give a recipe, or --set")
    (line,) = facts(home, "queue")
    assert [entry["id"] for entry in line["waiting"]] == [4, 3]
    assert line["held"] == "on request"
    assert "The queue is on hold." in call(home, "queue").stdout
    call(home, "queue", "clear")
    assert waiting(home) == []
    assert not all_runs(home)


def test_a_sweep_takes_the_options_for_several_gpus_as_a_run_does(home, recipe_file):
    call(home, "queue", "hold")
    done = call(home, "queue", "sweep", recipe_file, "--over", "adapter.r=2,4", "--num-processes", "2")
    assert "2 processes" in done.stdout, done.stderr
    assert [entry.launch for entry in Queue(home).read().waiting] == [Launch(processes=2)] * 2
    for options, words in {
        ("--gpus", "4000"): "no GPU 4000",
        ("--launcher", "mpirun"): "Unknown launcher mpirun",
        ("--num-processes", "2", "--config-file", "nowhere.yaml"): "not a readable accelerate configuration",
    }.items():
        assert_a_sentence(call(home, "queue", "sweep", recipe_file, *options), words)
    assert len(waiting(home)) == 2


def test_two_are_lined_up_and_run_when_every_command_is_gone(home, recipe_file):
    call(home, "queue", "hold")
    call(home, "queue", "add", recipe_file, "--set", "output.name=one")
    call(home, "queue", "add", recipe_file, "--set", "output.name=two")
    assert "two" in call(home, "queue").stdout
    call(home, "queue", "go")
    until(lambda: [summarise(run).state for run in all_runs(home)] == ["finished", "finished"])
    until(lambda: not Queue(home).read().ahead)
    assert {run.id for run in all_runs(home)} == {"one-01", "two-01"}
    said = call(home, "queue").stdout
    assert "one-01  finished" in said
    assert "The queue is empty" in said
    (line,) = facts(home, "queue")
    assert [entry["state"] for entry in line["taken"]] == ["finished", "finished"]


def test_what_does_not_fit_is_told_before_anything_is_lined_up(home, recipe_file):
    huge = ["--set", "data.max_length=8000000", "--set", "data.packing=true"]
    done = call(home, "queue", "sweep", recipe_file, *huge, "--over", "adapter.r=8,64")
    assert_a_sentence(done, "2 of 2 runs do not fit. Nothing was queued", "tiny-r8: Needs", "--force")
    assert waiting(home) == []
    # Where nothing is taken yet, what is wanted all the same can be lined up.
    call(home, "queue", "hold")
    call(home, "queue", "sweep", recipe_file, *huge, "--over", "adapter.r=8,64", "--force")
    assert waiting(home) == ["tiny-r8", "tiny-r64"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--over", "adapter.rr=8"], ["unknown key", "adapter.r"]),
        (["--over", "adapter.r=0,8"], ["adapter.r", "from 1 to 8192"]),
        (["--over", "adapter.r"], ["adapter.r=8,16,32,64"]),
    ],
)
def test_a_sweep_that_cannot_be_is_a_sentence(home, recipe_file, arguments, words):
    assert_a_sentence(call(home, "queue", "sweep", recipe_file, *arguments), *words)


def test_names_from_elsewhere_cannot_steer_the_terminal(home):
    home.root.mkdir(parents=True)
    entry = {"id": 1, "recipe": {"model": {"source": "a/\x1b[31mb"}, "output": {"name": "\x1b]0;x\x07"}}}
    home.queue.write_text(json.dumps({"next_id": 2, "waiting": [entry], "held": "\x1b[2J"}))
    assert "\x1b" not in call(home, "queue").stdout
