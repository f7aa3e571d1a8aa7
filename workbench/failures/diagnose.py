"""Turns an exception, an exit code or a log into a :class:`WorkbenchError`: what is wrong and what to do."""

import errno
import re
import signal
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.failures.known_failures import KNOWN
from workbench.failures.unforeseen import KIND, unforeseen, unforeseen_text

_TEXT_LIMIT = 300


def diagnose(error: BaseException, doing: str = "doing what was asked", log: Path | None = None) -> WorkbenchError:
    """Explain any exception, following its chain of causes, as libraries often wrap the actual error.

    Args:
        doing: what was being done, for an unknown exception; see :func:`~workbench.failures.unforeseen.unforeseen`.
        log: the file to which the traceback of an unknown exception is appended.
    """
    from workbench.failures.hub_errors import hub_error

    for link in _chain(error):
        if isinstance(link, WorkbenchError):
            if link.kind == KIND and link.__cause__ is not None and log is not None:
                continue  # explained again, with this log
            return link
        if isinstance(link, KeyboardInterrupt):
            return WorkbenchError("Interrupted.", kind="cancelled")
        known = hub_error(link, "the request") or _system_error(link)
        if known:
            return known
        names = {base.__name__ for base in type(link).__mro__}
        if known := _look_up(names, str(link)):
            return known
    while isinstance(error, WorkbenchError) and error.__cause__ is not None:
        error = error.__cause__
    return unforeseen(error, doing, log)


def diagnose_text(kind: str, text: str, doing: str = "working in the background") -> WorkbenchError:
    """As :func:`diagnose`, if only the exception's class name and text are known, from a log or a journal."""
    if known := _look_up({kind.rpartition(".")[2]}, text) or _system_error_in(text):
        return known
    return unforeseen_text(kind, text, doing, None)


def explain_death(exit_code: int | None, log_tail: str, *, oom_kills: int | None = None) -> WorkbenchError:
    """Explain why the engine ended, as far as is known.

    Args:
        exit_code: negative for a signal; None if unknown, as only the process that started the engine knows it.
        log_tail: the last lines of the engine's log or of its run's log.
        oom_kills: out-of-memory kills while the engine ran (see :mod:`workbench.machine.oom_killer`); None if unknown.
    """
    if exit_code is not None and exit_code != 0:
        return diagnose_exit(exit_code, log_tail, oom_kills=oom_kills)
    if exit_code is None and oom_kills:
        return _killed_for_memory("The engine")
    if last := _last_exception(log_tail):
        return diagnose_text(*last, "running the engine")
    if exit_code is None and _CRASH.search(log_tail):
        return _crashed("The engine", "no signal is known", log_tail)
    return WorkbenchError(
        "The engine log does not say why it ended.",
        "It was killed by another program or ran out of memory; `dmesg | grep -i oom` shows out-of-memory kills.",
        kind="ended",
    )


def diagnose_exit(code: int, log: str, *, what: str = "the engine", oom_kills: int | None = None) -> WorkbenchError:
    """Explain why a process ended, from its exit code and the end of its output.

    Args:
        code: negative for a signal, as in :mod:`subprocess`.
        log: the end of its output.
        what: the name of the process in the message.
        oom_kills: as in :func:`explain_death`.
    """
    name = what[:1].upper() + what[1:]
    # Shells and similar launchers report 128 + the signal's number.
    number = -code if code < 0 else code - 128 if code > 128 else 0
    if number:
        signal_name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        if number == signal.SIGKILL:
            return _killed(name, oom_kills)
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            return WorkbenchError(
                f"{name} was terminated by another program ({signal_name}).", "Start it again.", kind="killed"
            )
        return _crashed(name, signal_name, log)
    if last := _last_exception(log):
        return diagnose_text(*last, f"running {what}")
    tail = _first_words(log.strip().splitlines()[-1]) if log.strip() else "it printed nothing"
    return WorkbenchError(f"{name} ended with code {code}: {tail}", "See the log for details.", kind="ended")


# Printed by C and C++ libraries and by Python's fault handler when a process crashes in native code.
_CRASH = re.compile(
    r"Segmentation fault|Fatal Python error|terminate called|double free|corrupted size|Bus error|Illegal instruction"
)
# The message of an uncaught C++ exception.
_THROWN = re.compile(r"what\(\):\s*(.*)", re.DOTALL)
_LESS_MEMORY = "Use a smaller model, batch or max_length, or close other programs"


def _killed(name: str, oom_kills: int | None) -> WorkbenchError:
    if oom_kills:
        return _killed_for_memory(name)
    if oom_kills == 0:
        return WorkbenchError(
            f"{name} was killed by another program (SIGKILL); the kernel did not kill it for memory.",
            "Start it again; a job scheduler's time or memory limit may have ended it.",
            kind="killed",
        )
    return WorkbenchError(
        f"{name} was killed (SIGKILL), most likely because the machine ran out of memory.",
        f"{_LESS_MEMORY}; `dmesg | grep -i oom` shows out-of-memory kills.",
        kind="killed",
    )


def _killed_for_memory(name: str) -> WorkbenchError:
    return WorkbenchError(
        f"{name} was killed by the kernel: the machine or its container ran out of memory.",
        f"{_LESS_MEMORY}.",
        kind="out_of_memory",
    )


def _crashed(name: str, signal_name: str, log: str) -> WorkbenchError:
    """Explain a crash in native code; the log may contain the message of a C++ exception."""
    if (last := _last_exception(log)) and (known := _look_up({last[0]}, last[1])):
        return known
    if (thrown := _THROWN.search(log)) and (known := _look_up(set(), thrown[1])):
        return known
    if signal_name == "SIGILL":
        return WorkbenchError(
            f"{name} crashed (SIGILL): a library uses CPU instructions that this processor does not support.",
            "Install builds of PyTorch and bitsandbytes for this processor, or use a newer machine.",
            kind="crashed",
        )
    if signal_name == "SIGBUS":
        return WorkbenchError(
            f"{name} crashed (SIGBUS): a memory-mapped file was truncated, or shared memory is full.",
            "Check for a full disk and a full /dev/shm. Do not change the model's files while they are in use.",
            kind="crashed",
        )
    return WorkbenchError(
        f"{name} crashed in native code ({signal_name}).",
        "Run `loraworkbench doctor`: usually a library does not match this machine.",
        kind="crashed",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and its causes, outermost first; an inner one may name the actual reason."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _look_up(names: set[str], text: str) -> WorkbenchError | None:
    for row in KNOWN:
        if match := row.match(names, text):
            return WorkbenchError(row.message.format(**match.groupdict()), row.cure, kind=row.kind)
    return None


def _system_error(error: BaseException) -> WorkbenchError | None:
    # TLS errors are OSErrors too, but their number is OpenSSL's.
    if not isinstance(error, OSError) or isinstance(error, ssl.SSLError):
        return None
    return _explain_errno(error.errno, str(error.filename) if error.filename else "")


def _system_error_in(text: str) -> WorkbenchError | None:
    """As :func:`_system_error`, from the text alone: ``[Errno 28] No space left on device: 'x'``."""
    if match := re.search(r"\[Errno (?P<number>\d+)\][^'\n]*(?:'(?P<name>[^'\n]{1,200})')?", text):
        return _explain_errno(int(match["number"]), match["name"] or "")
    return _disk_full("") if re.search(r"No space left on device|Disk quota exceeded", text) else None


def _explain_errno(number: int | None, name: str) -> WorkbenchError | None:
    explain: dict[int | None, Callable[[str], WorkbenchError]] = {
        errno.ENOSPC: _disk_full,
        errno.EDQUOT: _disk_full,
        errno.EACCES: _not_allowed,
        errno.EPERM: _not_allowed,
        errno.EROFS: _not_allowed,
        errno.EMFILE: lambda _: WorkbenchError(
            "Too many files are open.", "Raise the limit (`ulimit -n 65536`) and start again.", kind="too_many_files"
        ),
        errno.ENOMEM: lambda _: WorkbenchError(
            "This machine is out of memory.", f"{_LESS_MEMORY}.", kind="out_of_memory"
        ),
    }
    return explain[number](name) if number in explain else None


def _disk_full(name: str) -> WorkbenchError:
    return WorkbenchError(
        f"The disk is full{f': {name} could not be written' if name else ''}.",
        "Free some space, or move all state to another disk with --home (HF_HOME for downloaded models).",
        kind="disk_full",
    )


def _not_allowed(name: str) -> WorkbenchError:
    return WorkbenchError(
        f"This user has no permission to read or write {name or 'a file'}.",
        "Change its permissions, or choose another place with --home or output.dir.",
        kind="not_allowed",
    )


def _last_exception(log: str) -> tuple[str, str] | None:
    """Class name and text of the last exception in a log."""
    matches = re.findall(
        r"^(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception|Interrupt|Warning|Exit)|[A-Z]\w+): (.*)$", log, re.M
    )
    errors = [(kind, text) for kind, text in matches if not kind.endswith("Warning")]
    return errors[-1] if errors else None


def _first_words(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_LIMIT else line[: _TEXT_LIMIT - 1] + "…"
