"""From an exception, or from the last words of a dead process, to a sentence with its cure."""

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
    """The sentence and the cure for any exception.

    The chain of causes is followed: libraries often wrap what went wrong.

    Args:
        doing: what was being done, for one that no rule knows; see :func:`~workbench.failures.unforeseen.unforeseen`.
        log: the file that then takes its traceback.
    """
    from workbench.failures.hub_errors import hub_error

    for link in _chain(error):
        if isinstance(link, WorkbenchError):
            if link.kind == KIND and link.__cause__ is not None and log is not None:
                continue  # told again, with this log
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
    """As :func:`diagnose`, for an exception of which only the class's name and the text are left (a log, a journal)."""
    if known := _look_up({kind.rpartition(".")[2]}, text) or _system_error_in(text):
        return known
    return unforeseen_text(kind, text, doing, None)


def explain_death(exit_code: int | None, log_tail: str, *, oom_kills: int | None = None) -> WorkbenchError:
    """Why the engine ended, as far as can be told.

    Args:
        exit_code: −number for a signal; only the process that started the engine knows it, others give None.
        log_tail: the last lines of the engine's log, or of its run's.
        oom_kills: how many processes the kernel killed for want of memory while it lived (see
            :mod:`workbench.machine.oom_killer`); None where that is not known.
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
    """Why a process ended: by a signal (``code`` = −number, as in :mod:`subprocess`), or with what it logged last.

    Args:
        log: the end of what it printed.
        what: its name in the sentence.
        oom_kills: as in :func:`explain_death`.
    """
    name = what[:1].upper() + what[1:]
    # A shell, and what starts processes like one, says 128 + the signal's number.
    number = -code if code < 0 else code - 128 if code > 128 else 0
    if number:
        sign = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        if number == signal.SIGKILL:
            return _killed(name, oom_kills)
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            return WorkbenchError(
                f"{name} was terminated by another program ({sign}).", "Start it again.", kind="killed"
            )
        return _crashed(name, sign, log)
    if last := _last_exception(log):
        return diagnose_text(*last, f"running {what}")
    tail = _first_words(log.strip().splitlines()[-1]) if log.strip() else "it printed nothing"
    return WorkbenchError(f"{name} ended with code {code}: {tail}", "See the log for details.", kind="ended")


# What the C and C++ libraries, and Python's fault handler, print when a process dies in native code.
_CRASH = re.compile(
    r"Segmentation fault|Fatal Python error|terminate called|double free|corrupted size|Bus error|Illegal instruction"
)
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


def _crashed(name: str, sign: str, log: str) -> WorkbenchError:
    """A death in native code; the log may hold what a C++ library had to say of it."""
    if (last := _last_exception(log)) and (known := _look_up({last[0]}, last[1])):
        return known
    if (thrown := _THROWN.search(log)) and (known := _look_up(set(), thrown[1])):
        return known
    if sign == "SIGILL":
        return WorkbenchError(
            f"{name} crashed (SIGILL): a library uses CPU instructions that this processor does not support.",
            "Install builds of PyTorch and bitsandbytes for this processor, or use a newer machine.",
            kind="crashed",
        )
    if sign == "SIGBUS":
        return WorkbenchError(
            f"{name} crashed (SIGBUS): a memory-mapped file was truncated, or shared memory is full.",
            "Check for a full disk and a full /dev/shm. Do not change the model's files while they are in use.",
            kind="crashed",
        )
    return WorkbenchError(
        f"{name} crashed in native code ({sign}).",
        "Run `loraworkbench doctor`: usually a library does not match this machine.",
        kind="crashed",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, then what it was raised from or while handling; the innermost may name the true reason."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _look_up(names: set[str], text: str) -> WorkbenchError | None:
    for row in KNOWN:
        if match := row.fits(names, text):
            return WorkbenchError(row.message.format(**match.groupdict()), row.cure, kind=row.kind)
    return None


def _system_error(error: BaseException) -> WorkbenchError | None:
    # What went wrong in TLS is an OSError too, but its number is OpenSSL's.
    if not isinstance(error, OSError) or isinstance(error, ssl.SSLError):
        return None
    return _explain_errno(error.errno, str(error.filename) if error.filename else "")


def _system_error_in(text: str) -> WorkbenchError | None:
    """As :func:`_system_error`, where only the text is left: ``[Errno 28] No space left on device: 'x'``."""
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
    """Class and text of the last traceback in a log."""
    found = re.findall(r"^(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception|Interrupt|Warning|Exit)|[A-Z]\w+): (.*)$", log, re.M)
    errors = [(kind, text) for kind, text in found if not kind.endswith("Warning")]
    return errors[-1] if errors else None


def _first_words(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_LIMIT else line[: _TEXT_LIMIT - 1] + "…"
