"""``loraworkbench chat``: one reply, or a conversation line by line."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from workbench.commands.common import console, errors, home_of, printable, run_async
from workbench.engine.client import EngineClient
from workbench.engine.process import ensure_engine
from workbench.engine.protocol import Message, Progress, ReplyRequest, Sampling
from workbench.errors import WorkbenchError
from workbench.paths import Home
from workbench.runs.folder import find_run


def chat(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="A run, an adapter folder, or a model.")],
    prompt: Annotated[str | None, typer.Option(help="Ask this and exit; without it a conversation starts.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    base: Annotated[bool, typer.Option("--base", help="Ask the base model, without the adapter.")] = False,
    temperature: Annotated[float, typer.Option(min=0, max=5, help="0 always takes the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Draw from this share of the probability.")] = 0.95,
    max_tokens: Annotated[int, typer.Option(min=1, max=32768, help="Longest reply.")] = 256,
    seed: Annotated[int | None, typer.Option(help="Makes the draw repeatable.")] = None,
) -> None:
    """Talk to a fine-tuned model, an adapter folder, or a base model."""
    sampling = Sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_tokens, seed=seed)
    messages = [Message(role="system", content=system)] if system else []
    home = home_of(context)
    run_async(_chat(home, _anchored(home, target), prompt, messages, sampling, adapter=not base))


def _anchored(home: Home, target: str) -> str:
    """The target with a relative path made absolute: the engine lives in another folder than this terminal."""
    path = Path(target).expanduser()
    if not (path / "adapter_config.json").is_file():
        try:
            return str(find_run(home, target).path)
        except WorkbenchError as error:
            if error.kind != "run_not_found":
                raise
    return str(path.absolute()) if path.exists() else target


async def _chat(
    home: Home, target: str, prompt: str | None, messages: list[Message], sampling: Sampling, *, adapter: bool
) -> None:
    await ensure_engine(home)
    client = EngineClient(home)
    try:
        if prompt is not None:
            messages.append(Message(role="user", content=prompt))
            await _print_reply(
                client, ReplyRequest(target=target, messages=messages, adapter=adapter, sampling=sampling)
            )
            return
        errors.print("An empty line or Ctrl-D ends the conversation.")
        while question := _read_line():
            messages.append(Message(role="user", content=question))
            request = ReplyRequest(target=target, messages=messages, adapter=adapter, sampling=sampling)
            try:
                messages.append(Message(role="assistant", content=await _print_reply(client, request)))
            except WorkbenchError as error:
                messages.pop()
                errors.print(Text(printable(str(error))))
    finally:
        await client.close()


async def _print_reply(client: EngineClient, request: ReplyRequest) -> str:
    text = ""
    with errors.status("") as waiting:
        async for piece in client.reply(request):
            if isinstance(piece, Progress):
                waiting.update(printable(f"{piece.phase} {piece.detail}"))
                continue
            if not text:
                waiting.stop()
            text += piece.text
            sys.stdout.write(printable(piece.text))
            sys.stdout.flush()
    sys.stdout.write("\n")
    return text


def _read_line() -> str:
    try:
        return console.input("› " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""
