"""Make the README's pictures from the app itself, on a home in which `loraworkbench demo` has run.

python docs/pictures/make.py HOME
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from screens.app import WorkbenchApp
from workbench.engine.client.process import stop_engine
from workbench.recipe.presets import load_preset
from workbench.storage.paths import Home

FOLDER = Path(__file__).parent
SIZE = (120, 36)
STEPS_SHOWN = 36
QUESTION = "Why is the sky blue?"


async def until(pilot: Pilot[None], condition: Callable[[], object], seconds: float = 120) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.1)
            await pilot.pause()


def words(app: WorkbenchApp) -> str:
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def take(home: Home) -> None:
    app = WorkbenchApp(home)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.pane_in_front is not None and app.session.host is not None)

        async def picture(key: str, name: str, ready: Callable[[], object]) -> None:
            await pilot.press("escape", key)
            await until(pilot, lambda: app.pane_in_front is not None and app.pane_in_front.id == name)
            await until(pilot, ready)
            await asyncio.sleep(1.5)
            await pilot.pause()
            (FOLDER / f"{name}.svg").write_text(app.export_screenshot(title="loraworkbench"), encoding="utf-8")

        await picture("f2", "models", lambda: "Qwen3-8B" in words(app))
        await picture("f3", "architecture", lambda: "q_proj" in words(app))
        await picture("f4", "adapter", lambda: "trainable" in words(app))
        await picture("f5", "data", lambda: "record 1" in words(app))
        app.set_recipe(load_preset("demo", home).as_dict())
        await pilot.press("escape", "f6")
        await until(pilot, lambda: app.pane_in_front is not None and app.pane_in_front.id == "train")
        await pilot.press("enter")
        await until(pilot, lambda: app.session.summary is not None and app.session.summary.step >= STEPS_SHOWN, 600)
        await picture("f6", "train", lambda: True)
        await until(pilot, lambda: not app.session.is_live, 600)
        await pilot.press("f7")
        await until(pilot, lambda: app.pane_in_front is not None and app.pane_in_front.id == "chat")
        await pilot.press(
            "enter", *("space" if c == " " else "question_mark" if c == "?" else c for c in QUESTION), "enter"
        )
        await until(pilot, lambda: "tok/s" in words(app))
        await picture("f7", "chat", lambda: True)
        await picture("f8", "runs", lambda: "demo-" in words(app))


async def main() -> None:
    home = Home(Path(sys.argv[1]).absolute())
    await take(home)
    await stop_engine(home)


if __name__ == "__main__":
    asyncio.run(main())
