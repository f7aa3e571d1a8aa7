"""The engine's process: listens on a Unix socket only its owner may open, until it is asked to end or idle for long."""

import argparse
import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from workbench.engine.client.protocol import ALREADY_RUNNING
from workbench.engine.daemon.api import Api
from workbench.engine.daemon.engine import Engine
from workbench.engine.daemon.idle import IdleLimits
from workbench.engine.daemon.output import OutputFile
from workbench.engine.daemon.torch_backend import TorchBackend
from workbench.errors import WorkbenchError
from workbench.failures.unforeseen import write_traceback
from workbench.storage.paths import Home, private_folder


class _Server(uvicorn.Server):
    """Leaves signals alone: the engine has its own idea of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(home: Home, output: OutputFile) -> None:
    """Answer requests until asked to end. SIGTERM and SIGINT stop and save a live run first; SIGHUP is ignored."""
    engine = Engine(home, TorchBackend(home, output))
    api = Api(engine)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, api.shutdown_asked.set)
    config = uvicorn.Config(
        api.app(), log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    with _listen(home.socket) as listener:
        # Runs may begin from here on: the socket is there, and who asks is answered.
        engine.queue.start()
        running = asyncio.create_task(server.serve(sockets=[listener]))
        threading.Thread(target=engine.backend.warm_up, name="warm up", daemon=True).start()
        await _until_asked_or_idle(api, home)
        await _end_run(engine)
        api.end_streams()
        server.should_exit = True
        await running
    home.socket.unlink(missing_ok=True)


async def _until_asked_or_idle(api: Api, home: Home) -> None:
    """A model that nobody uses is unloaded after a while; an engine that nobody speaks to, or can reach, ends."""
    while not api.shutdown_asked.is_set():
        limits = IdleLimits.of(home)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(api.shutdown_asked.wait(), timeout=min(20.0, limits.unload / 3, limits.stop / 3))
        api.sources.close_if_idle()
        if api.is_busy:
            continue
        if not home.socket.exists():
            return  # its home was removed
        now = time.monotonic()
        if now - max(api.last_request, api.engine.last_used) > limits.stop:
            return
        if api.engine.backend.holds_model and now - api.engine.last_used > limits.unload:
            await _unload(api.engine)


async def _unload(engine: Engine) -> None:
    try:
        await asyncio.to_thread(engine.unload)
    except WorkbenchError:
        pass  # work came in between
    except Exception as error:  # a driver may fail here; an engine that is needed again must not end for it
        write_traceback(error, "unloading an idle model", engine.home.engine_log)


async def _end_run(engine: Engine) -> None:
    engine.end()
    while engine.is_training:
        await asyncio.sleep(0.05)


def _listen(path: Path) -> socket.socket:
    """A socket of mode 0600 in a folder of mode 0700.

    Nobody can connect before its mode is set, since it does not listen yet. The umask is left alone: it is the whole
    process's, and a file that another thread makes meanwhile would get its rights from it.
    """
    private_folder(path.parent)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


def main() -> None:
    """``python -m workbench.engine.daemon.server --home DIR``: one engine a home; a second one ends at once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    home = Home(parser.parse_args().home)
    private_folder(home.engine)
    lock = os.open(home.engine / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(ALREADY_RUNNING)
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    output = OutputFile(home.engine_log)
    asyncio.run(serve(home, output))
    # Native threads of the libraries may crash while the interpreter is taken down; there is nothing left to save.
    os._exit(0)


if __name__ == "__main__":
    main()
