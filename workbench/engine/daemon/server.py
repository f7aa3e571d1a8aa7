"""The engine's process: serves its API on a Unix socket until it is asked to end or has been idle for long."""

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
    """A server that does not handle signals: the engine does."""

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
        # Queued runs may start only now: terminals can already connect.
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
    """Wait until the engine should end or cannot be reached; unload a model that has been unused for a while."""
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
        pass  # the engine has got work in the meantime
    except Exception as error:  # such as a driver's, which must not end the engine
        write_traceback(error, "unloading an idle model", engine.home.engine_log)


async def _end_run(engine: Engine) -> None:
    engine.end()
    while engine.is_training:
        await asyncio.sleep(0.05)


def _listen(path: Path) -> socket.socket:
    """Create a socket of mode 0600 in a folder of mode 0700.

    Nobody can connect before its mode is set, since it does not listen yet. The umask is not used for this: it belongs
    to the whole process, and files that other threads create meanwhile would be affected.
    """
    private_folder(path.parent)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


def main() -> None:
    """``python -m workbench.engine.daemon.server --home DIR``: run the home's engine; a second one ends at once."""
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
    # Native threads of libraries may crash while the interpreter shuts down; nothing is left to save.
    os._exit(0)


if __name__ == "__main__":
    main()
