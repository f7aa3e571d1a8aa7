"""The home folder and the paths inside it: runs, models, caches, settings, the engine's socket and logs."""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from workbench.errors import WorkbenchError

ENVIRONMENT_VARIABLE = "LORAWORKBENCH_HOME"

# sockaddr_un.sun_path holds 108 bytes on Linux, 104 on macOS, including the closing NUL.
_SOCKET_PATH_LIMIT = 100


@dataclass(frozen=True)
class Home:
    """The folder that holds all state. Two homes share nothing: no runs, no caches, no engine.

    Nothing is created here; callers create what they write to.
    """

    root: Path

    @classmethod
    def find(cls, override: Path | None = None) -> "Home":
        """The home named by ``--home``, else by ``LORAWORKBENCH_HOME``, else the user's data folder."""
        chosen = override or os.environ.get(ENVIRONMENT_VARIABLE) or platformdirs.user_data_path("loraworkbench")
        return cls(Path(chosen).expanduser().absolute())

    @property
    def runs(self) -> Path:
        """The run folders, one per run."""
        return self.root / "runs"

    @property
    def trash(self) -> Path:
        """Deleted runs. It is inside the runs folder, so that deleting is a rename on one disk."""
        return self.runs / ".trash"

    @property
    def models(self) -> Path:
        """Models converted on this machine: safetensors made from GGUF files and Python packages."""
        return self.root / "models"

    @property
    def cache(self) -> Path:
        """Files that can be regenerated, such as tokenized datasets and quantized bases."""
        return self.root / "cache"

    @property
    def engine(self) -> Path:
        """The engine's folder (mode 0700): its lock, its log and, if the path is short enough, its socket."""
        return self.root / "engine"

    @property
    def engine_log(self) -> Path:
        return self.engine / "engine.log"

    @property
    def terminal_log(self) -> Path:
        """Tracebacks of unexpected errors in the app and on the command line."""
        return self.root / "terminal.log"

    @property
    def settings(self) -> Path:
        return self.root / "settings.json"

    @property
    def queue(self) -> Path:
        """The queued runs."""
        return self.root / "queue.json"

    @property
    def socket(self) -> Path:
        """The engine's Unix socket. In a private temporary folder if its path would be too long."""
        in_home = self.engine / "engine.sock"
        if len(os.fsencode(in_home)) <= _SOCKET_PATH_LIMIT:
            return in_home
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"loraworkbench-{os.getuid()}" / f"{digest}.sock"


def private_folder(folder: Path) -> Path:
    """Create ``folder`` if it is missing, accessible to its owner only (mode 0700), and return it.

    Raises:
        WorkbenchError: it is a link or belongs to another user, who could then pose as the engine.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise WorkbenchError(
            f"{folder} is not owned by you, so it cannot hold the engine's socket.",
            "Remove it, or set another home with --home.",
            kind="home",
        )
    folder.chmod(0o700)
    return folder
