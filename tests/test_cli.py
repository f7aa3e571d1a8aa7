"""The command line as a person calls it: facts, a whole run, and mistakes that end in a sentence."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from transformers import MambaConfig

from tests.command_line import assert_a_sentence, call, call_process, facts, start
from tests.models.hub_server import Hub, serve
from workbench.engine.client.process import engine_pid
from workbench.recipe.text import edit, to_yaml
from workbench.storage.paths import Home
from workbench.storage.settings import update


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One home, and so one engine, for all tests of this file."""
    home = Home(tmp_path_factory.mktemp("cli") / "home")
    yield home
    call(home, "engine", "stop", "--force")


@pytest.fixture
def recipe_file(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(recipe), encoding="utf-8")
    return path


def wait_for(process, words):
    """Read on until a line holds these words; returns all that was read."""
    lines = []
    while not lines or words not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()
    return "".join(lines)


def test_without_a_terminal_the_app_says_so(home):
    done = call_process(home)
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


@pytest.mark.usefixtures("fresh_processes")
def test_help_and_version():
    for option in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-m", "workbench.cli", option], capture_output=True, text=True, check=True, timeout=60
        )
        assert "loraworkbench" in done.stdout


def test_models_and_presets_are_listed(home):
    assert facts(home, "models", by=call_process)[0]["source"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "demo" in [preset["name"] for preset in facts(home, "presets")]
    (demo,) = facts(home, "presets", "demo")
    assert demo["data"]["source"] == "first-mate"


def test_inspect_needs_only_a_configuration(home, tiny_llama, tmp_path):
    shutil.copy(tiny_llama / "config.json", tmp_path / "config.json")
    (tree,) = facts(home, "inspect", tmp_path)
    assert tree["architecture"] == "LlamaForCausalLM"
    shown = call(home, "inspect", tmp_path).stdout
    assert "q_proj" in shown
    assert "×2" in shown


def test_estimate_prints_figures_that_are_known(home):
    (known,) = facts(
        home, "estimate", "meta-llama/Llama-2-7b-hf", "--set", "adapter.r=8", "--set",
        "adapter.target_modules=[q_proj, v_proj]", "--vram", "24GB",
    )  # fmt: skip
    assert known["adapter"]["trainable_parameters"] == 4_194_304
    assert known["adapter"]["total_parameters"] == 6_742_609_920
    assert known["fits"] is True
    assert "adapter file" in call(home, "estimate", "gpt2").stdout


def test_estimate_tells_what_auto_comes_to_and_why(home):
    model = ("estimate", "Qwen/Qwen2.5-7B-Instruct", "--set", "training.gradient_checkpointing=auto")
    (roomy,) = facts(home, *model, "--vram", "40GiB")
    assert roomy["chosen"] == {"training.gradient_checkpointing": False}
    assert roomy["reasons"][0].startswith("Checkpointing off: ")
    both = (*model, "--set", "training.per_device_train_batch_size=auto", "--vram", "16GiB")
    (narrow,) = facts(home, *both)
    assert narrow["chosen"] == {
        "training.gradient_checkpointing": True,
        "training.per_device_train_batch_size": 8,
        "training.gradient_accumulation_steps": 2,
    }
    assert "Micro-batch 8 × 2 = 16: " in call(home, *both).stdout
    (stated,) = facts(home, *model[:2], "--set", "training.gradient_checkpointing=true", "--vram", "40GiB")
    assert (stated["chosen"], stated["reasons"]) == ({}, [])


def test_the_peak_of_a_model_outside_the_catalog_is_that_of_a_followed_step(home, tiny_llama, tmp_path):
    shutil.copy(tiny_llama / "config.json", tmp_path / "config.json")
    (rough,) = facts(home, "estimate", tmp_path, "--no-trace")
    assert rough["peak"]["method"] == "closed-form"
    first = call(home, "estimate", tmp_path, "--json")
    assert "Tracing one training step of LlamaForCausalLM" in first.stderr
    assert json.loads(first.stdout)["peak"]["method"] == "trace"
    again = call(home, "estimate", tmp_path, "--json")
    assert again.stdout == first.stdout
    assert "Following" not in again.stderr


def test_a_step_that_cannot_be_followed_leaves_the_formula(home, tmp_path):
    MambaConfig(vocab_size=64, hidden_size=16, state_size=4, num_hidden_layers=2).save_pretrained(tmp_path)
    done = call(home, "estimate", tmp_path, "--set", "adapter.target_modules=[in_proj, x_proj]", "--json")
    assert done.returncode == 0
    assert "cannot be traced" in done.stderr
    assert json.loads(done.stdout)["peak"]["method"] == "closed-form"


@pytest.mark.usefixtures("fresh_processes")
def test_a_run_by_command_is_told_as_its_journal(home, recipe_file):
    events = facts(home, "train", recipe_file, by=call_process)
    assert events[0]["event"] == "run_started"
    end = events[-1]
    assert (end["event"], end["reason"]) == ("run_ended", "finished")
    assert Path(end["adapter"], "adapter_model.safetensors").is_file()
    assert [event["seq"] for event in events] == list(range(len(events)))
    latest = facts(home, "runs")[0]
    assert (latest["id"], latest["state"], latest["step"]) == (end["run"], "finished", 8)
    reply = call_process(home, "chat", end["run"], "--prompt", "Question 3?", "--temperature", "0", "--max-tokens", "8")
    assert reply.returncode == 0, reply.stderr
    assert reply.stdout.strip()
    (status,) = facts(home, "engine", "status")
    assert status["model"]["adapter"] == end["adapter"]


def test_a_person_sees_a_bar_and_where_the_adapter_is(home, recipe_file):
    update(home, {"on_end": _on_end("by_engine")})
    failing = f"{_on_end('by_command')} away"
    try:
        done = call(home, "train", recipe_file, "--set", "training.max_steps=2", "--on-end", failing)
    finally:
        update(home, {"on_end": None})
    assert done.returncode == 0, "the result of the run is that of the run"
    assert "finished after 2 steps" in done.stdout
    assert "loraworkbench chat" in done.stdout
    assert "ended with exit code 1: the mail server is away" in done.stderr
    folder = home.runs / facts(home, "runs")[0]["id"]
    # The engine calls its command when the run is over; nobody waits for that.
    end = time.monotonic() + 60
    while not (folder / "by_engine").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    for name in ("by_engine", "by_command"):
        assert json.loads((folder / name).read_text())["event"] == "run_ended"


def _on_end(name):
    """A command that writes what it is given into a file of the run's folder; with a word more it fails."""
    code = (
        "import os, pathlib, sys; pathlib.Path('part').write_text(sys.stdin.read()); "
        f"os.replace('part', '{name}'); sys.exit('the mail server is ' + sys.argv[1] if sys.argv[1:] else 0)"
    )
    return f"{sys.executable} -c {shlex.quote(code.replace('part', name + '.part'))}"


def test_an_interrupt_stops_and_saves(home, recipe_file):
    process = start(home, "train", recipe_file, "--json", "--set", "training.max_steps=100000")
    wait_for(process, '"event": "step"')
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    end = json.loads(out.splitlines()[-1])
    assert (end["event"], end["reason"]) == ("run_ended", "stopped")
    assert Path(end["adapter"], "adapter_model.safetensors").is_file()
    assert "Traceback" not in err


def test_a_run_whose_engine_is_killed_goes_on_and_ends_with_somebody_watching(home, recipe_file):
    """Two terminals: one trains and resumes, another one watches; all steps are there in the end, each once."""
    steps = 400
    changes = [f"training.max_steps={steps}", "training.save_steps=20", "output.name=hardy"]
    first = start(home, "train", recipe_file, "--json", *[part for change in changes for part in ("--set", change)])
    wait_for(first, '"step": 30,')
    beside = start(home, "attach", "--watch")
    assert "hardy-01 running" in wait_for(beside, "step ")
    wait_for(beside, "checkpoint saved")
    os.kill(engine_pid(home), signal.SIGKILL)
    for process in (first, beside):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "The engine ended during run hardy-01" in err
        assert "loraworkbench train --resume hardy-01" in err
        assert "Traceback" not in err
    assert facts(home, "runs")[0]["state"] == "interrupted"
    # Nobody need wait: what was sent to the background is watched from where it goes on.
    (begun,) = facts(home, "train", "--resume", "hardy-01", "--detach")
    assert begun["run"] == "hardy-01"
    watched = call(home, "attach", "--watch")
    assert watched.returncode == 0, watched.stderr
    assert "\x1b" not in watched.stdout
    assert f"step {steps}/{steps}" in watched.stdout
    assert "hardy-01 finished (finished) after step 400; keeps the adapter of step 400" in watched.stdout
    events = facts(home, "attach", "hardy-01")
    assert [event["seq"] for event in events] == list(range(len(events)))
    (resumed,) = [event for event in events if event["event"] == "run_resumed"]
    assert resumed["step"] >= 20
    kept = [event["step"] for event in events[: resumed["seq"]] if event["event"] == "step"]
    anew = [event["step"] for event in events[resumed["seq"] :] if event["event"] == "step"]
    assert [step for step in kept if step <= resumed["step"]] + anew == list(range(1, steps + 1))
    assert_a_sentence(call(home, "train", "--resume", "hardy-01"), "hardy-01 has finished")


def test_what_is_asked_by_command_is_told_by_the_journal(home, recipe_file):
    process = start(home, "train", recipe_file, "--json", "--set", "training.max_steps=100000")
    told = wait_for(process, '"event": "step"')
    run = json.loads(told.splitlines()[0])["run"]
    for arguments in (("checkpoint",), ("evaluate",), ("sample",), ("learning-rate", "1e-3"), ("pause",)):
        done = call(home, "control", *arguments)
        assert done.returncode == 0, done.stderr
        assert run in done.stdout
        assert f"loraworkbench attach {run}" in done.stdout
    told += wait_for(process, '"event": "paused"')
    assert facts(home, "engine", "status")[0]["state"] == "paused"
    assert facts(home, "control", "resume")[0] == {
        "run": run, "action": "resume", "value": None, "acknowledged_by": "resumed",
    }  # fmt: skip
    told += wait_for(process, '"event": "resumed"')
    assert facts(home, "control", "max-steps", "50")[0]["acknowledged_by"] == "control"
    out, _ = process.communicate(timeout=120)
    events = [json.loads(line) for line in (told + out).splitlines()]
    controls = [(event["action"], event.get("value")) for event in events if event["event"] == "control"]
    assert controls[:5] == [
        ("checkpoint", None), ("evaluate", None), ("sample", None), ("learning_rate", 1e-3), ("pause", None),
    ]  # fmt: skip
    assert controls[5:] == [("max_steps", 50)]
    assert events[-1]["event"] == "run_ended"
    assert_a_sentence(call(home, "control", "pause"), "No run is live")


def test_a_second_interrupt_kills_the_engine_and_says_how_to_go_on(home, recipe_file):
    process = start(home, "train", recipe_file, "--watch", "--set", "training.max_steps=100000")
    told = wait_for(process, "step 3/100000")
    run = told.split()[0]
    # The engine stands still, so that it cannot stop by itself between the two.
    engine = psutil.Process(engine_pid(home))
    engine.suspend()
    process.send_signal(signal.SIGINT)
    first = process.stderr.readline()
    assert f"Stopping {run}" in first
    assert f"train --resume {run}" in first
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The engine was killed" in err
    assert "Traceback" not in err
    assert engine_pid(home) is None
    assert facts(home, "runs")[0]["state"] == "interrupted"


def test_an_engine_is_killed_at_once_and_watching_is_left_alone(home, recipe_file):
    (begun,) = facts(home, "train", recipe_file, "--detach", "--set", "training.max_steps=100000")
    watching = start(home, "attach", "--watch")
    wait_for(watching, "step 3/")
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert "The run keeps running in the background" in err
    assert facts(home, "engine", "status")[0]["run"] == begun["run"]
    done = call(home, "engine", "stop", "--now")
    assert "Engine killed" in done.stdout
    assert f"train --resume {begun['run']}" in done.stdout
    assert engine_pid(home) is None
    assert_a_sentence(call(home, "attach"), "No run is live")


def test_a_run_that_does_not_fit_is_refused_with_what_would(home, recipe_file):
    huge = ["--set", "data.max_length=8000000", "--set", "data.packing=true"]
    done = call(home, "train", recipe_file, *huge)
    assert_a_sentence(done, "does not fit", "free on", "--set data.max_length=", "--force")
    # The records are short: without packing no batch is as long as that.
    fits = call(home, "train", recipe_file, "--set", "data.max_length=8000000", "--set", "training.max_steps=2")
    assert fits.returncode == 0, fits.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], ["Give a recipe, or --resume RUN"]),
        (["train", "demo", "--resume", "x"], ["uses its own recipe"]),
        (["train", "--resume", "nobody"], ["nobody"]),
        (["train", "demo", "--detach", "--on-end", "true"], ["Omit --detach", "on_end in settings.json"]),
        (["control", "learning-rate"], ["learning-rate needs a number", "1e-4"]),
        (["control", "learning-rate", "3"], ["not a valid learning rate"]),
        (["control", "max-steps", "2.5"], ["not a valid number of steps"]),
        (["control", "pause", "3"], ["takes no number"]),
        (["control", "stop", "--release"], ["--release works only with pause"]),
        (["control", "stop"], ["No run is live"]),
        (["attach", "nobody"], ["nobody"]),
    ],
)
def test_what_cannot_be_asked_of_a_run_is_a_sentence(home, arguments, words):
    assert_a_sentence(call(home, *arguments), *words)


def test_five_mistakes_in_a_recipe_give_five_messages(home, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("adapter: {r: 0, lora_alhpa: 3}\ntraining: {learning_rate: fast, max_stepz: 1}\nmodle: {}\n")
    done = call_process(home, "train", path)
    assert_a_sentence(
        done, "5 mistakes", "adapter.r", "adapter.lora_alpha", "training.learning_rate", "training.max_steps"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["model.source=/nowhere/model"], ["No model at /nowhere/model"]),
        (["data.source=/nowhere/data.jsonl"], ["/nowhere/data.jsonl"]),
        (["adapter.target_modules=[nope]"], ["nope"]),
        (["output.dir=/proc/nowhere"], ["Cannot create a run folder"]),
        (["adapter.r"], ["has no value"]),
    ],
)
def test_what_cannot_be_trained_is_a_sentence(home, recipe_file, changes, words):
    done = call(home, "train", recipe_file, *[part for change in changes for part in ("--set", change)])
    assert_a_sentence(done, *words)


def test_unreadable_records_are_named_with_their_line(home, recipe_file, tmp_path):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"instruction": "a", "response": "b"}\n{"instruction": \n')
    assert_a_sentence(call(home, "train", recipe_file, "--set", f"data.source={path}"), "broken.jsonl", "line 2")


def test_a_gated_model_without_a_token_is_a_sentence(tmp_path, recipe, tiny_llama):
    served = Hub()
    served.repos["someone/gated"] = tiny_llama
    served.gated.add("someone/gated")
    own = Home(tmp_path / "home")
    path = tmp_path / "gated.yaml"
    path.write_text(to_yaml(edit(recipe, {"model.source": "someone/gated"})))
    with serve(served) as address:
        quiet = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
        # Libraries read these when they are imported.
        done = call_process(own, "train", path, **quiet)
        call(own, "engine", "stop", "--force")
    assert_a_sentence(done, "someone/gated", "license")


def test_a_full_disk_is_a_sentence(recipe, tmp_path):
    """A run folder on a file system of 2 MB."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    own = Home(tmp_path / "home")
    try:
        path = tmp_path / "recipe.yaml"
        path.write_text(to_yaml(edit(recipe, {"output.dir": str(small)})))
        assert_a_sentence(call(own, "train", path), "free on the disk")
    finally:
        call(own, "engine", "stop", "--force")
        subprocess.run(["umount", str(small)], check=False)


def test_presets_and_runs_that_do_not_exist_are_named(home):
    assert_a_sentence(call(home, "train", "no-such-preset"), "no-such-preset", "demo")
    assert_a_sentence(call(home, "chat", "nobody", "--prompt", "x"), "nobody")


def test_an_engine_with_a_live_run_is_not_stopped_by_accident(home, recipe_file):
    process = start(home, "train", recipe_file, "--json", "--set", "training.max_steps=100000")
    wait_for(process, '"event": "step"')
    assert_a_sentence(call(home, "engine", "stop"), "is live", "--force")
    assert call(home, "engine", "stop", "--force").returncode == 0
    out, _ = process.communicate(timeout=120)
    assert json.loads(out.splitlines()[-1])["reason"] == "stopped"
    deadline = time.monotonic() + 20
    while engine_pid(home):
        assert time.monotonic() < deadline
        time.sleep(0.05)
