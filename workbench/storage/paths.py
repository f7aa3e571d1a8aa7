"""Where state lives on disk. Everything is under one home; nothing is created before it is needed."""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from workbench.errors import WorkbenchError

ENVIRONMENT_VARIABLE = "LORAWORKBENCH_HOME"

# sockaddr_un.sun_path holds 108 bytes on Linux, 104 on macOS, with the closing zero.
_SOCKET_PATH_LIMIT = 100


@dataclass(frozen=True)
class Home:
    """All folders of one workbench. Two homes share nothing: neither runs nor caches nor engine."""

    root: Path

    @classmethod
    def find(cls, override: Path | None = None) -> "Home":
        """The home named by ``--home``, else by ``LORAWORKBENCH_HOME``, else the user's data folder."""
        chosen = override or os.environ.get(ENVIRONMENT_VARIABLE) or platformdirs.user_data_path("loraworkbench")
        return cls(Path(chosen).expanduser().absolute())

    @property
    def runs(self) -> Path:
        """Run folders, one a run."""
        return self.root / "runs"

    @property
    def trash(self) -> Path:
        """Runs that were thrown away. It lies among them, so that to move one is to rename it, wherever they lie."""
        return self.runs / ".trash"

    @property
    def models(self) -> Path:
        """Models that were converted or unpacked here: safetensors made from GGUF files and wheels."""
        return self.root / "models"

    @property
    def cache(self) -> Path:
        """What can be made again: downloads, module trees."""
        return self.root / "cache"

    @property
    def engine(self) -> Path:
        """The engine's own folder (mode 0700): its lock, its log and, where the path is short enough, its socket."""
        return self.root / "engine"

    @property
    def engine_log(self) -> Path:
        return self.engine / "engine.log"

    @property
    def terminal_log(self) -> Path:
        """The tracebacks of what nobody foresaw in the app and on the command line."""
        return self.root / "terminal.log"

    @property
    def settings(self) -> Path:
        return self.root / "settings.json"

    @property
    def queue(self) -> Path:
        """The runs that are lined up."""
        return self.root / "queue.json"

    @property
    def socket(self) -> Path:
        """The engine's Unix socket. A home with a very long path has it in a private folder under the temp folder."""
        near = self.engine / "engine.sock"
        if len(os.fsencode(near)) <= _SOCKET_PATH_LIMIT:
            return near
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"loraworkbench-{os.getuid()}" / f"{digest}.sock"


def private_folder(folder: Path) -> Path:
    """Make ``folder`` if it is missing, readable by its owner only (mode 0700).

    Raises:
        WorkbenchError: it is a link or somebody else's: who made it could pose as the engine.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise WorkbenchError(
            f"{folder} is not owned by you, so it cannot hold the engine's socket.",
            "Remove it, or set another home with --home.",
            kind="home",
        )
    folder.chmod(0o700)
    return folder
