"""Reads how often the kernel's out-of-memory killer has struck; two readings tell whether it did in between."""

from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def oom_kills(proc: Path = Path("/proc"), cgroups: Path = _CGROUPS) -> int | None:
    """Out-of-memory kills so far in this process's control group, or else on the whole machine.

    The engine is in the same group as the process that starts it. Reads ``memory.events`` (cgroup v2),
    ``memory.oom_control`` (v1) or ``/proc/vmstat``; none of them needs privileges.

    Returns:
        None if the kernel does not provide a count.
    """
    for counter in (*_counters(proc, cgroups), proc / "vmstat"):
        if (count := _oom_kill_in(counter)) is not None:
            return count
    return None


def kills_since(before: int | None) -> int | None:
    """Out-of-memory kills since an earlier reading; None if unknown."""
    now = oom_kills()
    return None if before is None or now is None else now - before


def _counters(proc: Path, cgroups: Path) -> list[Path]:
    """The counter files of this process's group; in a container the path is the host's, and ours is the root."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    counters: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            counters += [cgroups / path.lstrip("/") / "memory.events", cgroups / "memory.events"]
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            counters += [root / path.lstrip("/") / "memory.oom_control", root / "memory.oom_control"]
    return counters


def _oom_kill_in(counter: Path) -> int | None:
    """The ``oom_kill`` count in a file of names and numbers; None without it."""
    try:
        rows = dict(line.split(maxsplit=1) for line in counter.read_text().splitlines() if " " in line)
        return int(rows["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None
