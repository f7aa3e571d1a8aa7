"""The top line: the current recipe, the engine, the memory. Each part repaints by itself, to send little over SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.containers import Horizontal
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from screens.widgets.glyphs import GLYPHS, bar
from screens.widgets.plain import plain
from screens.widgets.sizes import NARROW_BELOW
from workbench.adapters.registry import size_words
from workbench.units import GIB, gib, gib_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from workbench.engine.client.protocol import EngineStatus
    from workbench.machine.gpu import GpuSample
    from workbench.machine.host import HostSample
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe

_METER_WIDTH = 6

BETWEEN_STEPS = ("evaluating", "sampling", "saving")
"""Phases of a run between two of its steps; a paused run goes through them, too, when asked to."""

# Without it a value at the edge of rounding would change every second, and each change is sent over SSH.
_DEAD_BAND = 0.3 * GIB


class _Text(Widget):
    """One line of text that repaints only when it changes, with a new layout only when its length changes."""

    text: reactive[Content] = reactive(Content(""), repaint=False)

    def watch_text(self, before: Content, now: Content) -> None:
        self.refresh(layout=self.styles.auto_dimensions and before.cell_length != now.cell_length)

    def render(self) -> Content:
        return self.text


class HeaderBar(Horizontal):
    """``loraworkbench  SmolLM2-135M-Instruct · nf4 · r 16 · all-linear    engine ● idle   0 H200 ▕██ ▏ 31/139 GiB``."""

    def __init__(self) -> None:
        super().__init__()
        self._summary = _Text(id="summary")
        self._engine = _Text(id="engine")
        self._memory = MemoryMeter(id="memory")

    def compose(self) -> ComposeResult:
        brand, label = _Text(id="brand"), _Text(id="engine-label")
        brand.text = Content.styled("loraworkbench", "bold $primary")
        label.text = Content.styled("engine", "$muted")
        yield brand
        yield self._summary
        yield label
        yield self._engine
        yield self._memory

    def on_mount(self) -> None:
        self.show_engine(None)

    def show_recipe(self, recipe: Recipe, skeleton: Skeleton | None) -> None:
        """Show the model and the three settings that matter most."""
        self._summary.text = Content.assemble(
            (plain(short_name(recipe.model.source)), "bold"),
            (
                _dotted("", base_word(recipe, skeleton), size_words(recipe.adapter), plain(targets_word(recipe))),
                "$muted",
            ),
        )

    def show_engine(self, status: EngineStatus | None, *, starting: bool = False) -> None:
        """Show the engine's state as a mark and a word."""
        word: str
        if status is not None:
            word = "stopping" if status.stopping else _doing(status)
            mark, style = (GLYPHS.dot, "$success") if word == "idle" else (GLYPHS.half, "$accent")
        else:
            word, mark, style = ("starting", GLYPHS.half, "$accent") if starting else ("off", GLYPHS.ring, "$muted")
        self._engine.text = Content.styled(f"{mark} {word}", style)

    def show_memory(self, gpus: Sequence[GpuSample], host: HostSample | None) -> None:
        """Show the VRAM of the fullest GPU, or host memory on a machine without one."""
        if gpus:
            gpu = max(gpus, key=lambda one: one.used_bytes or 0)
            self._memory.show(f"{gpu.index} {short_gpu(gpu.name)}", gpu.used_bytes, gpu.total_bytes)
        elif host is not None:
            label = f"no GPU {GLYPHS.separator} host" if self.app.size.width >= NARROW_BELOW else "no GPU"
            self._memory.show(label, host.used_bytes, host.total_bytes)


class MemoryMeter(_Text):
    """``0 H200 ▕███▏ 31/139 GiB``."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._shown: tuple[str, float] = ("", -1.0)

    def show(self, label: str, used: float | None, total: float | None) -> None:
        """Repaint if the value changed by more than rounding. Bytes; None if unknown."""
        if used is None or not total:
            self.text = Content.styled(f"{plain(label)} memory unknown", "$muted")
            return
        if self._shown[0] == label and abs(self._shown[1] - used) < _DEAD_BAND:
            return
        self._shown = (label, used)
        share = used / total
        style = "$error" if share > 0.97 else "$warning" if share > 0.85 else "$success"
        self.text = Content.assemble(
            (f"{plain(label)} ", "$muted"),
            (GLYPHS.left, "$muted"),
            (bar(share, _METER_WIDTH), f"{style} on $panel"),
            (GLYPHS.right, "$muted"),
            (f" {gib_number(used, 0)}/{gib(total, 0)}", ""),
        )


def _doing(status: EngineStatus) -> str:
    """Return what the engine is doing in a word; of a live run, the phase that it is in."""
    phase = status.progress.phase if status.progress is not None else ""
    if status.state == "training" or (status.state == "paused" and phase in BETWEEN_STEPS):
        return plain(phase) or "starting"
    return status.state


def short_name(source: str) -> str:
    """Return the last part of a hub id or path."""
    return source.rstrip("/").rpartition("/")[2] or source


def short_gpu(name: str) -> str:
    """Shorten a GPU's name: ``NVIDIA GeForce RTX 4090`` → ``RTX 4090``; ``NVIDIA H100 80GB HBM3`` → ``H100``."""
    words = [word for word in plain(name).split() if word not in ("NVIDIA", "GeForce", "Tesla")]
    return " ".join(words[: 2 if words and words[0] == "RTX" else 1]) or "GPU"


def method_word(recipe: Recipe) -> str:
    """Return how the base is stored, in one word."""
    method = recipe.quantization.method
    return "16-bit" if method == "none" else method


def base_word(recipe: Recipe, skeleton: Skeleton | None) -> str:
    """Return how the base is stored once it is loaded, in a word or two; the files of some models decide it."""
    from workbench.models.stored_quantization import recipe_as_loaded, stored_quantization

    stored = None if skeleton is None else stored_quantization(skeleton.config)
    if stored is None or skeleton is None:
        return method_word(recipe)
    return plain(stored.label) if stored.is_packed else method_word(recipe_as_loaded(recipe, skeleton.config))


def targets_word(recipe: Recipe) -> str:
    """Return the targets as ``all-linear``, ``q,v``, ``7 modules`` or ``regex``: short enough for a header."""
    targets = recipe.adapter.target_modules
    if isinstance(targets, str):
        return targets if targets == "all-linear" else "regex"
    if set(targets) == {"q_proj", "v_proj"}:
        return "q,v"
    return ",".join(targets) if len(targets) <= 2 else f"{len(targets)} modules"


def _dotted(*parts: str) -> str:
    return f" {GLYPHS.separator} ".join(parts)
