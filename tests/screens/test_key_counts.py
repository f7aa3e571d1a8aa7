"""How many keys a user presses from the launch of the app to what he came for. Text that he types counts as none."""

from pathlib import Path

from tests.screens.piloting import Opened, opened
from tests.screens.scripted import ScriptedEngine, some_facts
from tests.screens.test_chat_pane import with_run
from tests.screens.test_data_pane import jsonl
from tests.screens.test_tour import GIB, tour
from workbench.data.records.unused import UnusedField
from workbench.recipe.sections.model import DEFAULT_MODEL
from workbench.storage.paths import Home


class Counted:
    """Presses keys and counts them."""

    def __init__(self, screen: Opened) -> None:
        self._screen = screen
        self.keys = 0

    async def press(self, *keys: str) -> None:
        """Press keys that count."""
        self.keys += len(keys)
        await self._screen.press(*keys)

    async def type(self, text: str) -> None:
        """Type a name or a value: its letters do not count."""
        await self._screen.press(*text)


async def test_the_demo_takes_three(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        user = Counted(screen)
        await tour(screen)
        await user.press("enter", "enter")
        await screen.sees("Enter starts the run")
        await user.press("enter")
        await screen.until(lambda: "train" in screen.engine.asked, "the run")
        assert screen.app.session.recipe.model.source == DEFAULT_MODEL
        assert user.keys == 3


async def test_own_records_with_unknown_columns_on_another_model_take_at_most_twelve(tmp_path: Path) -> None:
    rows = [{"question": "2 + 2?", "answer": "4", "hint": "Count on your fingers, one after the other."}] * 8
    records = jsonl(tmp_path / "own.jsonl", rows)
    engine = ScriptedEngine(Home(tmp_path / "home"))
    unused = UnusedField("hint", 8, asks=True)
    engine.sources.answers = [some_facts([], unused=(unused,))] * 4
    async with opened(tmp_path / "home", engine=engine) as screen:
        user = Counted(screen)
        await tour(screen, host=256 * GIB)
        await user.type("Qwen3-4B")
        await user.press("enter")
        await screen.sees("2 of 3")
        await user.type(str(records))
        await user.press("enter")
        await screen.sees("5 opens Train with this recipe and does not start")
        await user.press("5")
        await screen.sees("run name")
        await user.press("N")
        await user.type("sums")
        await user.press("enter", "ctrl+p")
        await user.type("eval_steps 10")
        await screen.sees("Set eval_steps 0")
        await user.press("enter")
        await screen.until(lambda: screen.app.session.recipe.training.eval_steps == 10, "the cadence")
        await user.press("enter")
        await screen.sees("hint")
        await user.press("y")
        await screen.until(lambda: "train" in engine.asked, "the run")
        recipe = screen.app.session.recipe
        assert (recipe.model.source, recipe.data.source) == ("Qwen/Qwen3-4B", str(records))
        assert recipe.output.name.endswith("sums")
        assert user.keys == 9


async def test_chat_of_tuned_against_base_takes_four(tmp_path: Path) -> None:
    engine = with_run(tmp_path)
    async with opened(tmp_path, engine=engine) as screen:
        user = Counted(screen)
        await user.press("6")
        await screen.sees("chatting with")
        await user.press("o")
        await screen.sees("side by side")
        await user.press("enter")
        await user.type("who are you?")
        await user.press("enter")
        await screen.until(lambda: "reply" in engine.asked, "the question is sent")
        assert user.keys == 4
