"""Our processes as forks of one Python that has imported the heavy libraries.

An engine, a helper or a process of a distributed run imports torch, transformers, PEFT and TRL for some five seconds of
processor time, and the tests start a hundred of them. Within :func:`forking`, ``subprocess.Popen`` has them made by a
process that has imported the libraries once, as long as nothing that is read on import differs; so are the processes
that multiprocessing spawns. All else is as usual: each is a process of its own, with its arguments, environment,
streams and exit code, that signals reach and that outlives the test's.

Tests that use ``fresh_processes`` start each kind of them as a user does.
"""

import asyncio.unix_events
import ctypes
import fcntl
import json
import multiprocessing.util
import os
import runpy
import select
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MODULES = frozenset(
    {
        "accelerate.commands.launch",
        "workbench.cli",
        "workbench.engine.daemon.server",
        "workbench.engine.distributed.worker",
        "workbench.estimate.trace.run",
        "workbench.models.child",
    }
)
# What libraries read when they are imported.
_READ_ON_IMPORT = ("BNB_", "HF_", "LD_", "MKL_", "OMP_", "OPENBLAS_", "PYTHON", "TOKENIZERS_", "TRANSFORMERS_")
_UNIMPORTANT = frozenset({"HF_HUB_DISABLE_TELEMETRY", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONUNBUFFERED"})
_ROOM_FOR_ARGUMENTS = 4096
# The last argument of a process that multiprocessing spawns.
_SPAWNED = "--multiprocessing-fork"
_spawn = multiprocessing.util.spawnv_passfds

_server: "_Server | None" = None


def _search_path(environment: Mapping[str, str]) -> list[str]:
    return [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]


def _on_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_READ_ON_IMPORT) and name not in _UNIMPORTANT
    }


class _Server:
    """The process that forks: where to ask it, and in what environment it imported its libraries."""

    def __init__(self, address: str, *, is_running: bool = False) -> None:
        self.address = address
        self._all_environment = dict(os.environ)
        self._environment = _on_import(os.environ)
        self._path = {*_search_path(os.environ), *sys.path}
        self._lock = threading.Lock()
        self._is_running = is_running
        self._process: subprocess.Popen[bytes] | None = None

    def can_fork(self, arguments: list[object], environment: Mapping[str, str]) -> bool:
        """Whether a command is one of our processes, and would import what the server has imported."""
        if not arguments or not all(isinstance(argument, str) for argument in arguments):
            return False
        return (
            arguments[:1] == [sys.executable]
            and (_module_of(arguments) in MODULES or arguments[-1] == _SPAWNED)
            and set(_search_path(environment)) <= self._path
            and _on_import(environment) == self._environment
            and sum(map(len, arguments)) + len(arguments) < _ROOM_FOR_ARGUMENTS
        )

    def fork(
        self, arguments: list[str], files: Mapping[int, int], environment: Mapping[str, str], **more: object
    ) -> tuple[int, socket.socket]:
        """Have a process made; returns its id, and a connection that will bring its exit status.

        Args:
            files: open files of the new process, by their numbers there.
        """
        with self._lock:
            if not self._is_running:
                self._start()
        request = {"arguments": arguments, "files": list(files), "environment": dict(environment), **more}
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(self.address)
        socket.send_fds(connection, [json.dumps(request).encode()], list(files.values()))
        answer = connection.recv(64)
        assert answer, "the process that forks could not import the libraries"
        return int(answer), connection

    def _start(self) -> None:
        """Start the process; it imports its libraries while the first request waits."""
        self._process = process = subprocess.Popen(
            # The last argument is room: each fork writes its own arguments over these.
            [sys.executable, "-P", __file__, self.address, "x" * _ROOM_FOR_ARGUMENTS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=self._all_environment,
        )
        assert process.stdout
        assert process.stdout.readline() == b"listening\n"
        self._is_running = True

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()


def _module_of(arguments: list[str]) -> str:
    """What is given to ``-m``, if only other options stand before it."""
    for place, argument in enumerate(arguments[1:-1], 1):
        if argument == "-m":
            return arguments[place + 1]
        if not argument.startswith("-"):
            break
    return ""


class _Forked(subprocess.Popen):  # type: ignore[type-arg]
    """A process that is forked where it can be, else one as usual."""

    _connection: socket.socket | None = None

    def _execute_child(  # type: ignore[no-untyped-def]
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask,
        start_new_session, process_group,
    ):  # fmt: skip
        environment = dict(os.environ if env is None else env)
        arguments = list(args) if isinstance(args, list | tuple) else []
        if _server is None or not _server.can_fork(arguments, environment):
            return super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
                p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask,
                start_new_session, process_group,
            )  # fmt: skip
        files = {number: given if given != -1 else number for number, given in enumerate((p2cread, c2pwrite, errwrite))}
        folder = str(cwd or Path.cwd())
        self.pid, self._connection = _server.fork(
            arguments, files, environment, folder=folder, session=bool(start_new_session)
        )
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]
        return None

    def _internal_poll(self, _deadstate=None, **options):  # type: ignore[no-untyped-def]
        if self._connection is None:
            return super()._internal_poll(_deadstate, **options)  # type: ignore[misc]
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode

    def _try_wait(self, wait_flags):  # type: ignore[no-untyped-def]
        if self._connection is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc]
        if wait_flags and not select.select([self._connection], [], [], 0)[0]:
            return 0, 0
        # Empty where the process that forks has ended before: as for a child that somebody else waited for.
        status = int(self._connection.recv(64) or 0)
        self._connection.close()
        return self.pid, status


def _spawnv_passfds(path, args, passfds):  # type: ignore[no-untyped-def]
    """In the place of multiprocessing's: its processes are waited for by their pipes."""
    arguments = [os.fsdecode(argument) for argument in args]
    if _server is None or not _server.can_fork(arguments, os.environ):
        return _spawn(path, args, passfds)
    files = {number: number for number in (0, 1, 2, *sorted(passfds))}
    pid, _ = _server.fork(arguments, files, os.environ, folder=str(Path.cwd()), session=False)
    return pid


def _install() -> None:
    # asyncio waits for a process by its id, as only a parent can.
    asyncio.unix_events.subprocess = SimpleNamespace(**vars(subprocess))
    subprocess.Popen = _Forked  # type: ignore[misc]
    multiprocessing.util.spawnv_passfds = _spawnv_passfds


@contextmanager
def forking() -> Iterator[None]:
    """Have processes of :data:`MODULES` forked that are started by this one, and by those."""
    global _server  # noqa: PLW0603
    # A driver that was looked at cannot be used in a fork, and some libraries look at it on import.
    if sys.platform != "linux" or Path("/dev/nvidiactl").exists():
        yield
        return
    plain = subprocess.Popen
    with tempfile.TemporaryDirectory() as folder:
        _server = server = _Server(str(Path(folder, "forks")))
        _install()
        try:
            yield
        finally:
            subprocess.Popen, multiprocessing.util.spawnv_passfds, _server = plain, _spawn, None  # type: ignore[misc]
            asyncio.unix_events.subprocess = subprocess
            server.close()


@contextmanager
def not_forking() -> Iterator[None]:
    """Have all processes started as usual."""
    global _server  # noqa: PLW0603
    server, _server = _server, None
    try:
        yield
    finally:
        _server = server


# -- in the process that forks ----------------------------------------------------------------------------------------


def _serve(address: str) -> None:
    """Fork at each request, and tell whoever asked its exit status, until the test's process ends."""
    global _server  # noqa: PLW0603
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(16)
    # Who asks meanwhile waits for the imports.
    os.write(1, b"listening\n")
    # Before the imports: torch takes Popen by its name.
    _install()
    _import_all()
    _server = _Server(address, is_running=True)
    waiting: dict[int, tuple[int, socket.socket]] = {}
    while True:
        ready, _, _ = select.select([0, listener, *waiting], [], [])
        for file in ready:
            if file == 0:
                os._exit(0)
            elif file is listener:
                connection, _ = listener.accept()
                message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 16)
                pid = os.fork()
                if pid == 0:
                    for own in (listener, connection, *(pair[1] for pair in waiting.values())):
                        own.close()
                    for own in waiting:
                        os.close(own)
                    _become(json.loads(message), streams)
                for stream in streams:
                    os.close(stream)
                connection.send(str(pid).encode())
                waiting[os.pidfd_open(pid)] = (pid, connection)
            else:
                pid, connection = waiting.pop(file)
                os.close(file)
                _, status = os.waitpid(pid, 0)
                with suppress(OSError):
                    connection.send(str(status).encode())
                connection.close()


def _import_all() -> None:
    import gc
    from importlib import import_module

    from workbench.engine.model.libraries import import_libraries

    import_libraries()
    for name in (
        "datasets", "trl.trainer.sft_trainer", "transformers.models.llama.modeling_llama",
        "transformers.models.auto.modeling_auto", "torch.distributed.run", "workbench.engine.training.training",
        *sorted(MODULES),
    ):  # fmt: skip
        import_module(name)
    threads = [Path(thread, "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()]
    # PyArrow's allocator looks after its own thread at a fork.
    others = set(threads[1:]) - {"jemalloc_bg_thd"}
    assert not others, f"a process with threads cannot be forked safely: {others}"
    gc.collect()
    gc.freeze()


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """In a fork: be the process that was asked for, to its end."""
    arguments = request["arguments"]
    code = 1
    try:
        if request["session"]:
            os.setsid()
        # Out of the way of the numbers that they get.
        streams = [fcntl.fcntl(stream, fcntl.F_DUPFD_CLOEXEC, 512) for stream in streams]
        for number, stream in zip(request["files"], streams, strict=True):
            os.dup2(stream, number)
        os.closerange(512, 512 + 2 * len(streams))
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, encoding="utf-8", buffering=1 if number else -1, closefd=False)  # noqa: SIM115
            for number, mode in enumerate("rww")
        )
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        _show_arguments(arguments)
        if arguments[-1] == _SPAWNED:
            place = arguments.index("-c")
            sys.argv = ["-c", *arguments[place + 2 :]]
            exec(arguments[place + 1], {"__name__": "__main__"})
        else:
            place = arguments.index("-m")
            sys.argv = ["", *arguments[place + 2 :]]
            # That it was imported before is meant.
            warnings.simplefilter("ignore", RuntimeWarning)
            runpy.run_module(arguments[place + 1], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _show_arguments(arguments: list[str]) -> None:
    """Write the arguments to where ``ps`` and the workbench read them."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    *first, last = arguments
    room = end - start - sum(len(os.fsencode(argument)) + 1 for argument in arguments)
    # A path may begin with any number of slashes; other arguments are followed by empty ones.
    last = "/" * room + last if last.startswith("/") else last
    text = b"\0".join(map(os.fsencode, [*first, last]))
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))


if __name__ == "__main__":
    # Under this name the processes that are forked find it, too.
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests import forks

    forks._serve(sys.argv[1])
