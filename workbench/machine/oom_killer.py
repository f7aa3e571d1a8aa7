"""How often the kernel has killed a process because memory ran out: two readings tell whether it did in between."""

from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def oom_kills(proc: Path = Path("/proc"), cgroups: Path = _CGROUPS) -> int | None:
    """The kills counted so far in this process's control group, else on the whole machine.

    The engine is in the group of whoever starts it. Read are ``memory.events`` (cgroup v2), ``memory.oom_control``
    (v1) and ``/proc/vmstat``; none of them needs a right.

    Returns:
        None where the kernel does not tell.
    """
    for counter in (*_counters(proc, cgroups), proc / "vmstat"):
        if (count := _oom_kill_in(counter)) is not None:
            return count
    return None


def kills_since(before: int | None) -> int | None:
    """How many there were since an earlier reading; None where that is not known."""
    now = oom_kills()
    return None if before is None or now is None else now - before


def _counters(proc: Path, cgroups: Path) -> list[Path]:
    """Files of this process's own group; inside a container its path is seen from the outside, and the root is ours."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += [cgroups / path.lstrip("/") / "memory.events", cgroups / "memory.events"]
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            found += [root / path.lstrip("/") / "memory.oom_control", root / "memory.oom_control"]
    return found


def _oom_kill_in(counter: Path) -> int | None:
    """The number after ``oom_kill`` in a file of words and numbers; None without it."""
    try:
        rows = dict(line.split(maxsplit=1) for line in counter.read_text().splitlines() if " " in line)
        return int(rows["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None
