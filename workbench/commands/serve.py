"""``loraworkbench serve``: an OpenAI-compatible server for a base and adapters on it."""

import asyncio
import logging
import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.status import Status

from workbench.commands.common import BaseOption, JsonOption, console, home_of, print_json, printable, run_async
from workbench.engine.client.process import find_engine
from workbench.engine.client.protocol import EngineStatus
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.serving.ssh_line import ssh_line
from workbench.storage.paths import Home
from workbench.units import gib

if TYPE_CHECKING:
    from workbench.serving.access import Access
    from workbench.serving.finished import Finished
    from workbench.serving.models import Served


def serve(
    context: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            help="Runs, checkpoints (RUN@40), adapter folders or a base, all with the same base. NAME=TARGET "
            "chooses the name that clients use."
        ),
    ],
    base: BaseOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    socket: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Listen on this Unix socket instead of a port.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the token that clients send as API key. Default: a new token."),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Ask for no token: any user of this machine may use the model.")
    ] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Needed for an address that other machines can reach.")
    ] = False,
    cache_tokens: Annotated[
        int | None,
        typer.Option(
            min=256,
            help="Tokens of keys and values that each model keeps, for all of its requests together. Default: "
            "8192 on a CPU, what fits on a GPU.",
        ),
    ] = None,
    beside_run: Annotated[
        bool, typer.Option("--beside-run", help="Serve even while a run trains on this machine.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve a base and any number of adapters on it over an OpenAI-compatible API. Ctrl-C ends it.

    Requests for all of them are answered together, in batches. With --json each request is a line of JSON.
    """
    from workbench.serving.access import choose_access

    home = home_of(context)
    access = choose_access(
        socket.expanduser().absolute() if socket else None,
        host,
        port,
        token_file,
        no_token=no_token,
        allow_remote=allow_remote,
    )
    run_async(_serve(home, targets, base or "", access, cache_tokens, beside_run=beside_run, as_json=as_json))


async def _serve(
    home: Home,
    targets: list[str],
    base: str,
    access: "Access",
    cache_tokens: int | None,
    *,
    beside_run: bool,
    as_json: bool,
) -> None:
    from workbench.serving.access import listen
    from workbench.serving.server import Server

    _keep_libraries_quiet(home)
    _check_engine(await find_engine(home), beside_run=beside_run)
    # Before gigabytes are loaded: the address may be in use.
    with listen(access) as listener:
        served = await _load(home, targets, base)
        server = Server(home, served, access.token, cache_tokens, _show_json if as_json else _show)
        is_ending = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, is_ending.set)
        actual = access.at(listener)
        if as_json:
            print_json({"url": actual.url, "socket": str(access.path or ""), "models": list(served.models)})
        else:
            _introduce(served, actual, server.cache_tokens)
        try:
            await server.run(listener, is_ending)
        finally:
            if access.path is not None:
                access.path.unlink(missing_ok=True)


def _keep_libraries_quiet(home: Home) -> None:
    """Send libraries' warnings to the log, so that they are not shown between the lines of the requests."""
    home.root.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=home.terminal_log, level=logging.WARNING)
    logging.captureWarnings(True)


def _check_engine(status: EngineStatus | None, *, beside_run: bool) -> None:
    if status is not None and status.run is not None and not beside_run:
        raise WorkbenchError(
            f"Run {status.run} trains on this machine; a server beside it would take its memory and slow it down.",
            "Wait until it has ended, or add --beside-run if there is room for both.",
            kind="busy",
        )


async def _load(home: Home, targets: list[str], base: str) -> "Served":
    """Load the models in a thread; Ctrl-C ends the process, which is the only way to end a load."""
    from transformers.utils.logging import disable_progress_bar

    from workbench.serving.models import load_served

    disable_progress_bar()
    stop = threading.Event()
    with Status("loading", console=console) as line:

        def report(progress: Progress) -> None:
            line.update(printable(f"{progress.phase} {progress.detail}".strip()))

        try:
            return await asyncio.to_thread(load_served, home, targets, base, report, stop.is_set)
        except asyncio.CancelledError:
            stop.set()
            raise


def _introduce(served: "Served", access: "Access", cache_tokens: int) -> None:
    first = next(iter(served.models))
    key = f" -H 'Authorization: Bearer {access.token}'" if access.token else ""
    where = f"--unix-socket {access.path} " if access.path else ""
    body = f'{{"model": "{first}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    lines = [
        f"Serving {', '.join(served.models)} on {served.base.description}, {gib(served.base.footprint, 2)}.",
        f"Base URL  {access.url}" + (f" on the socket {access.path}" if access.path else ""),
        f"API key   {access.token or 'none'}",
        f"Each model keeps up to {cache_tokens:,} tokens of keys and values.",
        "",
        f"curl {where}{access.url}/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'",
    ]
    if access.path is None and access.is_local:
        lines.append(f"From your machine: {ssh_line(access.port)}")
    if not access.is_local:
        lines.append("Other machines can connect, and the connection is not encrypted.")
    for line in [*lines, "", "Ctrl-C ends the server. One line per request:"]:
        console.print(printable(line), markup=False, soft_wrap=True)


def _show(request: "Finished") -> None:
    speed = f", {request.tokens / request.seconds:.1f} tok/s" if request.tokens and request.seconds else ""
    others = f", {request.running} running" if request.running else ""
    text = (
        f"{request.model}: prompt {request.prompt_tokens}, reply {request.tokens} tokens in {request.seconds:.1f} s"
        f"{speed}, {request.reason}{others}"
    )
    console.print(printable(text), markup=False, soft_wrap=True)


def _show_json(request: "Finished") -> None:
    print_json(asdict(request))
