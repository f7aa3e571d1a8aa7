"""Where state lives, and that nobody else can stand in its place."""

import stat
from pathlib import Path

import pytest

from workbench.errors import WorkbenchError
from workbench.storage.paths import ENVIRONMENT_VARIABLE, Home, private_folder


def test_the_home_is_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "from-environment"))
    assert Home.find().root == tmp_path / "from-environment"
    assert Home.find(tmp_path / "option").root == tmp_path / "option"
    assert not (tmp_path / "option").exists()


def test_a_private_folder_is_the_owners_alone(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_in_the_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(WorkbenchError, match="not owned by you"):
        private_folder(tmp_path / "link")
