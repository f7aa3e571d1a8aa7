"""``loraworkbench chat``: one reply or a conversation, with one model or several side by side."""

import secrets
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from workbench.commands.common import BaseOption, console, errors, home_of, printable, run_async
from workbench.data.records.reasoning import split_thinking
from workbench.data.records.tool_calls import call_text, function_name, read_tools_file
from workbench.engine.client.client import EngineClient
from workbench.engine.client.conversations import parse_parts
from workbench.engine.client.process import ensure_engine
from workbench.engine.client.protocol import AdapterPart, Message, ReplyPiece, ReplyRequest, Sampling
from workbench.engine.client.requests import here
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.runs.folder import find_run
from workbench.storage.paths import Home

_MAX_SEED = 10**6


@dataclass(frozen=True)
class _ReplyTarget:
    """A model that replies, with the settings of its replies and its own conversation so far."""

    label: str
    request: ReplyRequest
    messages: tuple[Message, ...]

    @property
    def open_calls(self) -> list[dict[str, Any]]:
        """The calls of the last reply whose results are not there yet."""
        for results, message in enumerate(reversed(self.messages)):
            if message.role != "tool":
                return message.tool_calls[results:]
        return []


def chat(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="A run, a checkpoint (RUN@40), an adapter folder, or a model.")],
    prompt: Annotated[
        str | None, typer.Option(help="Send this prompt and exit. Default: start a conversation.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    tools: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON file of functions that the model may call. Calls are only shown."),
    ] = None,
    no_adapter: Annotated[
        bool, typer.Option("--no-adapter", help="Chat with the base model, without the adapter.")
    ] = False,
    base: BaseOption = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Compare base and tuned at the same seed.")
    ] = False,
    beside: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGET", help="Also compare this run, on the same base. Can be repeated."),
    ] = None,
    scale: Annotated[float, typer.Option(min=0, max=2, help="Adapter scale. 1: as trained.")] = 1.0,
    combine: Annotated[
        str | None, typer.Option(metavar="A=0.7,B=0.3", help="Combine adapters, each with a weight.")
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Merge the adapter into a 16-bit base: faster, one adapter only.")
    ] = False,
    greedy: Annotated[bool, typer.Option("--greedy", help="Greedy decoding, same as --temperature 0.")] = False,
    temperature: Annotated[float, typer.Option(min=0, max=5, help="0 is greedy decoding.")] = 0.7,
    top_p: Annotated[
        float, typer.Option(min=0.01, max=1, help="Nucleus sampling: probability mass to sample from.")
    ] = 0.95,
    top_k: Annotated[int, typer.Option(min=0, max=1_000_000, help="Sample from the k most likely tokens. 0: all.")] = 0,
    min_p: Annotated[
        float, typer.Option(min=0, max=1, help="Drop tokens less likely than this share of the most likely one.")
    ] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(min=0.01, max=5, help="Repetition penalty. 1: none.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, max=32768, help="Maximum reply length in tokens.")] = 256,
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Sampling seed.")] = None,
) -> None:
    """Chat with a fine-tuned model, an adapter folder or a base model, or with several side by side."""
    home = home_of(context)
    sampling = Sampling(
        temperature=0 if greedy else temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        max_new_tokens=max_tokens,
        seed=seed,
    )
    first = ReplyRequest(
        target=_anchored(home, target),
        messages=[],
        tools=read_tools_file(tools.expanduser()) if tools else [],
        adapter=not no_adapter,
        scale=scale,
        combine=_parts(home, combine) if combine else [],
        merged=merged,
        base=here(base or ""),
        sampling=sampling,
    )
    requests = {target: first}
    if side_by_side:
        requests = {"base": first.model_copy(update={"adapter": False, "combine": [], "scale": 1.0}), **requests}
    for other in beside or []:
        update = {"target": _anchored(home, other), "on": first.target, "combine": []}
        requests[other] = first.model_copy(update=update)
    if len(requests) > 1 and merged:
        raise WorkbenchError(
            "--merged works with one adapter only.", "Omit --merged to compare several side by side.", kind="usage"
        )
    messages = (Message(role="system", content=system),) if system else ()
    targets = [_ReplyTarget(label, request, messages) for label, request in requests.items()]
    run_async(_chat(home, prompt, targets))


def _parts(home: Home, text: str) -> list[AdapterPart]:
    return [part.model_copy(update={"target": _anchored(home, part.target)}) for part in parse_parts(text)]


def _anchored(home: Home, target: str) -> str:
    """The target with relative paths made absolute, as the engine runs in another folder."""
    path = Path(target).expanduser()
    name, at, step = target.rpartition("@")
    checkpoint = f"@{step}" if at and step.isdecimal() and not path.exists() else ""
    if not (path / "adapter_config.json").is_file():
        try:
            return str(find_run(home, name if checkpoint else target).path) + checkpoint
        except WorkbenchError as error:
            if error.kind != "run_not_found":
                raise
    return str(path.absolute()) if path.exists() else target


async def _chat(home: Home, prompt: str | None, targets: list[_ReplyTarget]) -> None:
    await ensure_engine(home)
    client = EngineClient(home)
    try:
        if prompt is not None:
            await _ask_all(client, targets, Message(role="user", content=prompt))
            return
        errors.print("An empty line or Ctrl-D ends the conversation.")
        while (question := _read_question(targets[0])) is not None:
            try:
                targets = await _ask_all(client, targets, question)
            except WorkbenchError as error:
                errors.print(Text(printable(str(error))))
    finally:
        await client.close()


async def _ask_all(client: EngineClient, targets: list[_ReplyTarget], question: Message) -> list[_ReplyTarget]:
    """Ask each target in turn with one seed; returns the targets with their conversations continued.

    A result of a tool is only added while results of other calls are missing.
    """
    if question.role == "tool" and len(targets[0].open_calls) > 1:
        return [replace(target, messages=(*target.messages, question)) for target in targets]
    seed = secrets.randbelow(_MAX_SEED) if len(targets) > 1 else None
    answered = []
    for target in targets:
        if len(targets) > 1:
            sys.stdout.write(f"── {printable(target.label)}\n" if _unicode() else f"-- {printable(target.label)}\n")
        messages = (*target.messages, question)
        sampling = target.request.sampling
        if sampling.seed is None and sampling.temperature > 0:
            sampling = sampling.model_copy(update={"seed": seed})
        request = target.request.model_copy(update={"messages": list(messages), "sampling": sampling})
        reply = await _print_reply(client, request)
        answered.append(replace(target, messages=(*messages, reply)))
    return answered


async def _print_reply(client: EngineClient, request: ReplyRequest) -> Message:
    """Write the answer and the calls of tools on standard output, the reasoning on standard error."""
    message = Message(role="assistant", content="")
    is_begun = is_reasoning = False
    with errors.status("") as waiting:
        async for piece in client.reply(request):
            if isinstance(piece, Progress):
                waiting.update(printable(f"{piece.phase} {piece.detail}"))
                continue
            if piece.notice:
                errors.print(Text.assemble(("! ", "yellow"), printable(piece.notice)), soft_wrap=True)
            if (piece.text or piece.reasoning) and not is_begun:
                waiting.stop()
                is_begun = True
            if piece.reasoning:
                errors.print(Text(printable(piece.reasoning), "dim"), end="")
                is_reasoning = True
            # With tools, the text may be a call: it is written once it is known.
            if piece.text and not request.tools:
                _end_reasoning(is_reasoning)
                is_reasoning = False
                sys.stdout.write(printable(piece.text))
                sys.stdout.flush()
            if piece.done and piece.left_out:
                waiting.stop()
                errors.print(_left_out(piece))
            message = piece.message or message
    _end_reasoning(is_reasoning)
    answer = split_thinking(message.content)[1] if request.tools else ""
    lines = [answer] if answer else []
    lines += [f"calls {call_text(call)}" for call in message.tool_calls]
    sys.stdout.write(printable("\n".join(lines)) + "\n")
    return message


def _end_reasoning(is_reasoning: bool) -> None:
    if is_reasoning:
        errors.print()


def _left_out(piece: ReplyPiece) -> str:
    questions = "question" if piece.left_out == 1 else f"{piece.left_out} questions"
    return f"\nThe context of {piece.context_tokens} tokens is full; dropped the oldest {questions}."


def _unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _read_question(target: _ReplyTarget) -> Message | None:
    """Read the next question, or the result of a call; None for an empty line."""
    calls = target.open_calls
    name = function_name(calls[0]) if calls else ""
    if calls and sys.stdin.isatty():
        errors.print(Text(printable(f"Type the result of {call_text(calls[0])}")))
    text = _read_line(f"{printable(name)} › " if name else "› ")
    if not text:
        return None
    return Message(role="tool", content=text, name=name) if name else Message(role="user", content=text)


def _read_line(prompt: str) -> str:
    try:
        return console.input(Text(prompt) if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""
