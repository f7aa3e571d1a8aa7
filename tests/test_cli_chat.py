"""Chat by command: one, several side by side, sums and scales, and what is said of a mistake."""

import pytest

from tests.command_line import call
from tests.engine.voices_of_tiny import run_with_adapter
from workbench.recipe.text import edit
from workbench.storage.paths import Home

GREEDY = ("--greedy", "--max-tokens", "12")


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    yield home
    call(home, "engine", "stop", "--force")


def said(home, *arguments) -> str:
    done = call(home, "chat", *arguments, "--prompt", "Why do ships float?", LANG="C.UTF-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_and_several_by_command(home, recipe):
    first, second = (run_with_adapter(home, edit(recipe, {"quantization.method": "none"}), seed) for seed in (0, 1))
    tuned, base = said(home, first.id, *GREEDY), said(home, first.id, "--no-adapter", *GREEDY)
    other = said(home, second.id, *GREEDY)
    assert len({tuned, base, other}) == 3
    together = said(home, first.id, "--side-by-side", "--beside", second.id, *GREEDY)
    assert together == f"── base\n{base}── {first.id}\n{tuned}── {second.id}\n{other}"
    assert said(home, first.id, "--scale", "0", *GREEDY) == base
    assert said(home, first.id, "--combine", f"{first.id}=0.5,{second.id}=0.5", *GREEDY) not in (tuned, other, base)
    assert said(home, first.id, "--combine", f"{first.id}=0,{second.id}=0", *GREEDY) == base
    # Drawn side by side with no seed given: one is drawn for both, so that scale 0 says what the base says.
    columns = said(home, first.id, "--side-by-side", "--beside", first.id, "--scale", "0", "--max-tokens", "12")
    assert columns.split("── ")[1].removeprefix("base\n") == columns.split("── ")[2].removeprefix(f"{first.id}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--combine", "a=b"), "not of the form adapter=weight"),
        (("--merged", "--side-by-side"), "--merged works with one adapter only"),
    ],
)
def test_mistakes_are_sentences(home, recipe, arguments, words):
    run = run_with_adapter(home, recipe, 0)
    done = call(home, "chat", run.id, "--prompt", "x", *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_tools_of_a_file_reach_the_model(home, recipe, tmp_path):
    """The tiny model's template writes no tools: that is said, and nothing is generated without them in silence."""
    run = run_with_adapter(home, edit(recipe, {"quantization.method": "none"}), 0)
    tools = tmp_path / "tools.json"
    tools.write_text('[{"name": "weather", "parameters": {"type": "object", "properties": {}}}]')
    with_tools = call(home, "chat", run.id, *GREEDY, "--tools", tools, "--prompt", "Rain?")
    assert with_tools.returncode == 1
    assert "tools" in with_tools.stderr
    (tmp_path / "no.json").write_text("{")
    done = call(home, "chat", run.id, "--tools", tmp_path / "no.json", "--prompt", "Rain?")
    assert done.returncode == 1
    assert "it is not JSON" in done.stderr
