"""``loraworkbench control``: pause, resume, stop or change a live run."""

from enum import StrEnum
from typing import Annotated

import typer

from workbench.commands.common import JsonOption, console, home_of, print_json, run_async
from workbench.engine.client.client import EngineClient
from workbench.engine.client.kill_engine import kill_engine, what_is_kept
from workbench.engine.client.process import find_engine
from workbench.engine.client.protocol import ControlAction, ControlRequest, StopRequest
from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder, find_run
from workbench.storage.paths import Home


class Action(StrEnum):
    """What a live run can be asked to do."""

    pause = "pause"
    resume = "resume"
    checkpoint = "checkpoint"
    evaluate = "evaluate"
    sample = "sample"
    learning_rate = "learning-rate"
    max_steps = "max-steps"
    stop = "stop"
    discard = "discard"
    kill = "kill"


# What the run does, and the journal event that confirms it.
_EFFECTS = {
    Action.pause: ("pauses after this step; model kept in memory", "paused"),
    Action.resume: ("resumes", "resumed"),
    Action.checkpoint: ("saves a checkpoint after this step", "checkpoint"),
    Action.evaluate: ("is evaluated on its held-out records after this step", "eval"),
    Action.sample: ("generates replies to its fixed prompts after this step", "sample"),
    Action.learning_rate: ("uses peak learning rate {value:g} from the next step on", "control"),
    Action.max_steps: ("ends after step {value:g}; the schedule is recomputed", "control"),
    Action.stop: ("stops within one micro-step and saves its adapter and state (resumable)", "run_ended"),
    Action.discard: ("stops within one micro-step; adapter and checkpoints are deleted", "run_ended"),
}
_NEEDS_VALUE = {Action.learning_rate: "1e-4", Action.max_steps: "500"}


def control(
    context: typer.Context,
    action: Annotated[Action, typer.Argument(help="Action to apply to the live run.")],
    value: Annotated[float | None, typer.Argument(help="New peak learning rate, or new max steps.")] = None,
    release: Annotated[
        bool, typer.Option("--release", help="With pause: release GPU memory. Resuming loads the model again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Control the live run. Most actions apply at the next step; stop and discard apply sooner.

    kill ends the engine at once; the run keeps its last checkpoint and can be resumed.
    """
    home = home_of(context)
    _check(action, value, release=release)

    async def work() -> None:
        run = await _live_run(home)
        if action is Action.kill:
            await kill_engine(home)
            message, event = f"was interrupted; it {what_is_kept(run)}", None
            hint = f"Resume:  loraworkbench train --resume {run.id}"
        else:
            await _send(home, action, value, release=release)
            message, event = _EFFECTS[action]
            message = message.format(value=value or 0)
            if release:
                message = "pauses after this step and releases GPU memory"
            hint = f"To watch for its `{event}` event: loraworkbench attach {run.id}"
        if as_json:
            print_json({"run": run.id, "action": action.value, "value": value, "acknowledged_by": event})
        else:
            console.print(f"{run.id} {message}.\n{hint}", markup=False, soft_wrap=True)

    run_async(work())


def _check(action: Action, value: float | None, *, release: bool) -> None:
    if action in _NEEDS_VALUE and value is None:
        raise WorkbenchError(
            f"{action.value} needs a number.",
            f"For example: loraworkbench control {action.value} {_NEEDS_VALUE[action]}",
            kind="bad_request",
        )
    if action not in _NEEDS_VALUE and value is not None:
        raise WorkbenchError(f"{action.value} takes no number.", "Omit it.", kind="bad_request")
    if value is not None and not value > 0:  # NaN is not, either
        raise WorkbenchError(f"{value:g} is not greater than 0.", "Give a positive number.", kind="bad_request")
    if action is Action.learning_rate and value is not None and value > 1:
        raise WorkbenchError(
            f"{value:g} is not a valid learning rate.", "Give a number no greater than 1.", kind="bad_request"
        )
    if action is Action.max_steps and value is not None and not value.is_integer():
        raise WorkbenchError(f"{value:g} is not a valid number of steps.", "Give a whole number.", kind="bad_request")
    if release and action is not Action.pause:
        raise WorkbenchError("--release works only with pause.", "Omit it.", kind="bad_request")


async def _live_run(home: Home) -> RunFolder:
    status = await find_engine(home)
    if status is None or status.run is None:
        raise WorkbenchError(
            "No run is live.",
            "Start one with `loraworkbench train`, or resume one with `loraworkbench train --resume RUN`.",
            kind="no_run",
        )
    return find_run(home, status.run_folder or status.run)


async def _send(home: Home, action: Action, value: float | None, *, release: bool) -> None:
    client = EngineClient(home)
    try:
        if action in (Action.stop, Action.discard):
            await client.stop(StopRequest(save=action is Action.stop))
        else:
            # The members are named as the protocol names its actions.
            protocol_action: ControlAction = action.name  # type: ignore[assignment]
            await client.control(ControlRequest(action=protocol_action, value=value, release=release))
    finally:
        await client.close()
