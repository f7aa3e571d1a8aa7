"""Two processes on this machine's processor, started by ``accelerate launch`` and meeting over gloo."""

import asyncio
import time

import psutil
import pytest
from safetensors.torch import load_file

from tests.engine.runs_of_tiny import adapter_digest, begin, curve, ended, events_of, wait_for_step
from tests.journals import read_events
from workbench.engine.client.client import EngineClient
from workbench.engine.client.protocol import ControlRequest, StopRequest
from workbench.engine.client.requests import resume_request, train_request
from workbench.engine.distributed.launched import LaunchedTraining
from workbench.errors import WorkbenchError
from workbench.planning.launch import Launch
from workbench.recipe.text import edit
from workbench.runs.checkpoints import newest_intact
from workbench.runs.folder import RunFolder, create_run, find_run, summarise

TWO = Launch(processes=2)
# float32 all through, so that only the order of additions differs.
PLAIN = {
    "quantization.method": "none",
    "quantization.compute_dtype": "float32",
    "data.eval_fraction": 0.2,
    "training.max_steps": 6,
    "training.gradient_accumulation_steps": 2,
    "training.eval_steps": 3,
}
DROPOUT = {
    "adapter.lora_dropout": 0.1,
    "training.max_steps": 30,
    "training.per_device_train_batch_size": 1,
    "training.save_steps": 4,
    "training.logging_steps": 3,
    "training.lr_scheduler_type": "cosine",
}


def launched(home, run: RunFolder, *, resume: bool = False) -> LaunchedTraining:
    thread = LaunchedTraining(home, run, TWO, resume=resume)
    thread.start()
    return thread


def log_of(run: RunFolder) -> str:
    return run.log.read_text(errors="replace")[-3000:] if run.log.is_file() else ""


def finished(thread: LaunchedTraining) -> RunFolder:
    thread.join(240)
    assert not thread.is_alive(), log_of(thread.run_folder)
    assert thread.error is None, f"{thread.error}\n{log_of(thread.run_folder)}"
    assert summarise(thread.run_folder).state == "finished"
    return thread.run_folder


def test_two_processes_decide_alike(home, recipe):
    """What is left open comes to the same in both, so that they meet in each micro-step."""
    left_open = {
        "training.gradient_checkpointing": "auto",
        "training.per_device_train_batch_size": "auto",
        "training.effective_batch_size": 2,
    }
    run = finished(launched(home, create_run(home, edit(recipe, PLAIN | left_open))))
    chosen = [event["chosen"] for event in events_of(run, "phase") if event.get("chosen")]
    assert chosen == [
        {
            "training.gradient_checkpointing": False,
            "training.per_device_train_batch_size": 2,
            "training.gradient_accumulation_steps": 1,
        }
    ]
    stated = finished(launched(home, create_run(home, edit(recipe, PLAIN | chosen[0]))))
    assert curve(run) == curve(stated)
    assert adapter_digest(run) == adapter_digest(stated)


def test_two_processes_learn_what_one_with_twice_the_micro_batch_does(home, recipe):
    alone, thread = begin(home, edit(recipe, PLAIN | {"training.per_device_train_batch_size": 2}))
    ended(thread)
    both = finished(launched(home, create_run(home, edit(recipe, PLAIN | {"training.per_device_train_batch_size": 1}))))
    assert curve(both) == pytest.approx(curve(alone), rel=1e-5)
    assert [event["step"] for event in events_of(both, "step")] == [1, 2, 3, 4, 5, 6]
    for kind, figures in {"step": ("tokens", "grad_norm", "token_accuracy"), "eval": ("loss", "tokens")}.items():
        for mine, theirs in zip(events_of(both, kind), events_of(alone, kind), strict=True):
            assert mine["step"] == theirs["step"]
            for figure in figures:
                assert mine[figure] == pytest.approx(theirs[figure], rel=1e-3)
    trained, expected = (load_file(run.adapter / "adapter_model.safetensors") for run in (both, alone))
    assert trained.keys() == expected.keys()
    for name, weights in expected.items():
        assert trained[name].numpy() == pytest.approx(weights.numpy(), abs=1e-4), name
    assert [event["processes"] for event in events_of(both, "phase") if "processes" in event] == [2]


def test_a_process_that_is_killed_ends_the_run_with_its_reason_and_the_run_goes_on_bit_for_bit(home, recipe):
    recipe = edit(recipe, DROPOUT)
    whole = finished(launched(home, create_run(home, recipe)))
    checkpoint, _ = newest_intact(whole.checkpoints)
    assert {f"rng_state_{rank}.pth" for rank in (0, 1)} <= {file.name for file in checkpoint.path.iterdir()}

    thread = launched(home, create_run(home, recipe))
    run = thread.run_folder
    wait_for_step(run, 6)
    processes = {peer.rank: peer.process for peer in thread._peers}
    processes[1].kill()
    thread.join(120)
    assert not thread.is_alive()
    assert not any(_lives(process) for process in processes.values())
    summary = summarise(run)
    assert summary.state == "failed"
    assert "Process 2 of 2 was killed (SIGKILL)" in summary.reason
    assert thread.error is not None
    assert thread.error.cure
    [error] = events_of(run, "error")
    assert "SIGKILL" in error["traceback"] or "-9" in error["traceback"]

    finished(launched(home, run, resume=True))
    assert adapter_digest(run) == adapter_digest(whole)
    assert {step: loss for step, loss in curve(run).items() if step % 3 == 0} == curve(whole)
    [resumed] = events_of(run, "run_resumed")
    assert resumed["step"] >= 4


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


async def until(condition, run: RunFolder, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, f"{read_events(run.journal)[-3:]}\n{log_of(run)}"
        await asyncio.sleep(0.05)


async def test_controls_are_obeyed_by_all_processes_and_a_stopped_run_goes_on(home, recipe, engine: EngineClient):
    recipe = edit(recipe, {"training.max_steps": 5000, "training.per_device_train_batch_size": 1})
    run = find_run(home, (await engine.train(train_request(recipe, TWO))).run)

    async def is_over() -> bool:
        return (await engine.status()).run is None

    async def is_paused() -> bool:
        return (await engine.status()).state == "paused"

    def told(kind: str, **fields):
        async def is_told() -> bool:
            return any(fields.items() <= event.items() for event in events_of(run, kind))

        return is_told

    await until(told("step", step=2), run)
    await engine.control(ControlRequest(action="pause"))
    await until(told("paused"), run)
    await until(is_paused, run)
    await engine.control(ControlRequest(action="sample"))
    await until(told("sample"), run)
    await engine.control(ControlRequest(action="resume"))
    await engine.control(ControlRequest(action="learning_rate", value=0.001))
    await until(told("control", action="learning_rate"), run)
    await engine.stop(StopRequest(save=True))
    await until(is_over, run)
    summary = summarise(run)
    assert summary.state == "stopped"
    checkpoint, damaged = newest_intact(run.checkpoints)
    assert checkpoint.step == events_of(run, "run_ended")[-1]["step"] >= 2
    assert not damaged

    resumed = await engine.resume(resume_request(run.id))
    assert (resumed.run, resumed.folder) == (run.id, str(run.path))
    assert resumed.seq == read_events(run.journal)[resumed.seq]["seq"]
    await until(told("run_resumed", step=checkpoint.step), run)
    await until(told("step", step=checkpoint.step + 1), run)
    await engine.control(ControlRequest(action="max_steps", value=1))
    await until(is_over, run)
    assert summarise(run).state == "finished"
    steps = [event["step"] for event in events_of(run, "step")]
    assert steps == list(range(1, steps[-1] + 1))
    rates = {event["step"]: event["learning_rate"] for event in events_of(run, "step")}
    assert rates[checkpoint.step + 1] == 0.001


async def test_a_launch_that_cannot_be_is_refused(home, recipe, tmp_path, engine: EngineClient):
    for launch, words in {
        Launch(processes=2, devices=(0, 0)): "cannot share the GPUs",
        Launch(processes=2, config_file=str(tmp_path / "none.yaml")): "is not a readable",
    }.items():
        with pytest.raises(WorkbenchError, match=words):
            await engine.train(train_request(recipe, launch))
    assert not home.runs.exists() or not list(home.runs.iterdir())
