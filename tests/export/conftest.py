"""Finished runs for the tests of exports: a tiny one, and one of a real chat model."""

import pytest

from tests.export.alone import Scripts
from tests.helper_process import work_here
from workbench.engine.training.thread import TrainingThread
from workbench.errors import WorkbenchError
from workbench.export import run as export_run
from workbench.export.gguf.fetched_tools import fetch_tools
from workbench.recipe.text import parse
from workbench.runs.folder import RunFolder, create_run
from workbench.storage.paths import Home


def train(home: Home, recipe) -> RunFolder:  # type: ignore[no-untyped-def]
    """A run that was trained to its end in this process."""
    run = create_run(home, recipe)
    thread = TrainingThread(home, run, recipe)
    thread.start()
    thread.join(400)
    assert not thread.is_alive()
    assert thread.error is None, thread.error
    return run


@pytest.fixture(scope="module")
def scripts():  # type: ignore[no-untyped-def]
    """Runs exported scripts, each alone."""
    scripts = Scripts()
    yield scripts
    scripts.close()


def tiny_recipe(model, records, **sections):  # type: ignore[no-untyped-def]
    """Six steps on the tiny Llama, with dropout, so that randomness matters."""
    parts = {
        "model": {"source": str(model)},
        "adapter": {"r": 8, "lora_dropout": 0.1},
        "data": {"source": str(records), "max_length": 64},
        "training": {
            "max_steps": 6,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 0.01,
            "gradient_checkpointing": False,
            "save_steps": 0,
        },
        "output": {"name": "tiny"},
    }
    return parse({name: {**parts.get(name, {}), **sections.get(name, {})} for name in {**parts, **sections}})


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("export") / "home")


@pytest.fixture(scope="session")
def tiny_run(tiny_home: Home, tiny_llama, records) -> RunFolder:  # type: ignore[no-untyped-def]
    """QLoRA on the tiny Llama."""
    return train(tiny_home, tiny_recipe(tiny_llama, records))


@pytest.fixture(scope="session")
def llama_cpp() -> Home:
    """A home with llama.cpp's converter and library, kept between test runs in the user's cache folder."""
    import platformdirs

    home = Home(platformdirs.user_cache_path("loraworkbench-tests"))
    try:
        fetch_tools(home, lambda progress: None, lambda: False)
    except WorkbenchError as error:
        if error.kind != "unreachable":
            raise
        pytest.skip(f"needs llama.cpp's converter, which cannot be fetched here: {error}")
    return home


@pytest.fixture
def export_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are made in this process instead of a helper process."""
    work_here(monkeypatch, export_run)
