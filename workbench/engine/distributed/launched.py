"""Starts the processes of a run, passes requests to them, and finds out why they died, for the engine."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from workbench.engine.client.process import last_lines
from workbench.engine.distributed.link import Peer
from workbench.engine.distributed.sharding import needs_sharding
from workbench.engine.model.base import LoadedBase
from workbench.engine.steering.controls import Controls
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose, diagnose_exit
from workbench.planning.launch import Launch, launch_command, launch_environment, write_config
from workbench.progress import Progress
from workbench.runs.events import RunEnded, RunError
from workbench.runs.folder import RunFolder
from workbench.runs.journal import JournalReader, JournalWriter
from workbench.runs.replay import Replay, fold
from workbench.storage.paths import Home, private_folder

_POLL_SECONDS = 0.05
# Time in which the launcher itself ends the remaining processes when one has died.
_GRACE_SECONDS = 45.0
_LOG_LINES = 20
# How torch's launcher logs that a process ended.
_EXIT = re.compile(r"exitcode\s*:\s*(-?\d+)\s*\(pid:\s*(\d+)\)")


class LaunchedTraining(threading.Thread):
    """Trains a run in processes that ``accelerate launch`` starts; the engine uses it like a ``TrainingThread``.

    Args:
        finished: called last, in this thread, after success and failure alike.
    """

    # None: the processes have the model, and release it when they end.
    base: LoadedBase | None = None

    def __init__(
        self,
        home: Home,
        run: RunFolder,
        launch: Launch,
        finished: "Callable[[LaunchedTraining], None] | None" = None,
        *,
        resume: bool = False,
    ) -> None:
        super().__init__(name=f"launch {run.id}", daemon=True)
        self.home = home
        self.run_folder = run
        self.launch = launch
        self.controls = Controls()
        self.error: WorkbenchError | None = None
        self._finished = finished
        self._resume = resume
        self._peers: list[Peer] = []
        self._launcher: subprocess.Popen[bytes] | None = None
        self._sent_stop: bool | None = None
        self._journal_reader = JournalReader.from_end(run.journal)

    @property
    def progress(self) -> Progress | None:
        first = self._first
        if first is not None and first.progress is not None:
            return first.progress
        return Progress(phase="loading", detail=f"starting {self.launch.processes} processes")

    @property
    def processes(self) -> list[psutil.Process]:
        """The training processes that have connected so far."""
        return [peer.process for peer in self._peers if peer.process is not None]

    def run(self) -> None:
        try:
            with self._listen() as listener:
                self._start()
                self._follow(listener)
        except Exception as error:
            traceback.print_exc()
            self.error = diagnose(error, f"training run {self.run_folder.id}", self.run_folder.log)
        finally:
            self._end_all()
            try:
                self._record_end()
            except Exception as error:
                traceback.print_exc()
                doing = f"writing the end of run {self.run_folder.id}"
                self.error = self.error or diagnose(error, doing, self.run_folder.log)
            if self._finished:
                self._finished(self)

    # -- while the processes run --------------------------------------------------------------------------------------

    @property
    def _socket(self) -> Path:
        return self.home.socket.with_name("ranks.sock")

    @contextlib.contextmanager
    def _listen(self) -> Iterator[socket.socket]:
        """A socket of mode 0600 in a folder of mode 0700."""
        path = self._socket
        private_folder(path.parent)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen(self.launch.processes)
            yield listener
        finally:
            listener.close()
            path.unlink(missing_ok=True)

    def _start(self) -> None:
        recipe, launch = self.run_folder.recipe(), self.launch
        if not launch.sharded and needs_sharding(self.home, recipe, launch):
            launch = launch.model_copy(update={"sharded": True})
        config = write_config(launch, recipe, self.run_folder.path)
        command = launch_command(launch, config, self.home, self.run_folder, engine=self._socket, resume=self._resume)
        with self.run_folder.log.open("ab") as log:
            self._launcher = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=launch_environment(),
            )

    def _follow(self, listener: socket.socket) -> None:
        assert self._launcher is not None
        while self._launcher.poll() is None:
            peers = {peer.connection.socket: peer for peer in self._peers if peer.is_open}
            ready, _, _ = select.select([listener, *peers], [], [], _POLL_SECONDS)
            for connection in ready:
                if connection is listener:
                    self._peers.append(Peer(listener.accept()[0]))
                else:
                    peers[connection].receive()
            self._relay()
            self._watch()
        for peer in self._peers:
            # The last messages, and the end of each connection.
            while peer.is_open and select.select([peer.connection.socket], [], [], 0)[0]:
                peer.receive()

    @property
    def _first(self) -> Peer | None:
        return next((peer for peer in self._peers if peer.rank == 0), None)

    def _relay(self) -> None:
        """Pass the user's requests to the first process, once it accepts them."""
        first = self._first
        if first is None or not first.accepts_requests or not first.is_open:
            return
        self.controls.paused = first.paused
        while command := self.controls.take():
            first.send(command)
        if self.controls.is_stopped() and self._sent_stop != self.controls.save:
            self._sent_stop = self.controls.save
            first.stop(save=self._sent_stop)

    def _watch(self) -> None:
        """End the launcher if a process has died and the launcher has not ended the others in time."""
        losses = [peer.lost for peer in self._peers if peer.lost is not None]
        if losses and time.monotonic() - min(losses) > _GRACE_SECONDS:
            assert self._launcher is not None
            self._launcher.kill()

    # -- after they have ended ----------------------------------------------------------------------------------------

    def _end_all(self) -> None:
        """Kill the launcher, its child processes, and every training process that has connected.

        Each process leads a session of its own, so they are killed one by one.
        """
        processes = list(self.processes)
        if self._launcher is not None:
            with contextlib.suppress(psutil.Error):
                processes += psutil.Process(self._launcher.pid).children(recursive=True)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._launcher.pid, signal.SIGKILL)
            self._launcher.wait()
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=_GRACE_SECONDS)
        for peer in self._peers:
            peer.connection.socket.close()
        self.controls.paused = ""

    def _record_end(self) -> None:
        """Write the run's end into the journal, if its first process could not."""
        replay = fold(self._journal_reader.read(), Replay(self.run_folder.id))
        if replay.ended is not None:
            self.error = _recorded_error(replay)
            return
        self.error = self.error or self._cause()
        with JournalWriter(self.run_folder.journal) as journal:
            journal.write(RunError.of(self.error, last_lines(self.run_folder.log, _LOG_LINES)))
            journal.write(RunEnded(reason="error", run=self.run_folder.id))

    def _cause(self) -> WorkbenchError:
        """The error of the first process that died: the one it sent, or one made from its exit code."""
        log = last_lines(self.run_folder.log, 400)
        ends = [peer for peer in self._peers if not peer.is_done and _is_cause(peer)]
        if not ends:
            assert self._launcher is not None
            return diagnose_exit(self._launcher.returncode, log, what="the launcher of this run")
        first = min(ends, key=lambda peer: peer.lost or time.monotonic())
        if first.failed is not None:
            return first.failed
        name = f"process {first.rank + 1} of {self.launch.processes}"
        if first.rank < len(self.launch.devices):
            name += f" (GPU {self.launch.devices[first.rank]})"
        codes = {int(pid): int(code) for code, pid in _EXIT.findall(log)}
        code = codes.get(first.process.pid if first.process else -1)
        if code is None:
            return WorkbenchError(
                f"{name[:1].upper() + name[1:]} ended without an error message.",
                "See the last lines of the run's log, then resume the run.",
                kind="killed",
            )
        return diagnose_exit(code, log, what=name)


def _is_cause(peer: Peer) -> bool:
    return peer.failed is None or peer.failed.kind != "process_lost"


def _recorded_error(replay: Replay) -> WorkbenchError | None:
    """The error of a run that ended with one."""
    if replay.ended is None or replay.ended.reason != "error":
        return None
    error = replay.error or RunError()
    return WorkbenchError(error.message, error.cure, kind=error.kind)
