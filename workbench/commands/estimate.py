"""``loraworkbench estimate``: parameters, file size and peak memory of a recipe, without downloading weights."""

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from workbench.commands.common import (
    JsonOption,
    SetOption,
    console,
    errors,
    home_of,
    print_json,
    printable,
    recipe_from,
)
from workbench.commands.output.fetching import FetchBar
from workbench.errors import WorkbenchError
from workbench.estimate import Price, Setup, TraceStore, price
from workbench.estimate.adapter.suggested_fix import options_text, suggested_fix
from workbench.estimate.memory_text import parse_memory
from workbench.estimate.peak import Peak, Phase
from workbench.machine.gpu import first_gpu
from workbench.machine.hardware import gpu_device
from workbench.machine.host import host_memory
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.trees import skeleton_in_catalog, skeleton_of
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, parse_assignment
from workbench.storage.paths import Home
from workbench.units import file_size, gib


class StepVariant(StrEnum):
    """Whose training step is estimated: this program's, or that of common notebooks."""

    workbench = "workbench"
    plain = "plain"


def estimate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A Hugging Face id, a folder (config.json is enough), or a GGUF file.")],
    recipe: Annotated[str | None, typer.Option(help="A recipe file or preset. Default: the default settings.")] = None,
    assignments: SetOption = None,
    vram: Annotated[
        str | None, typer.Option(help="Memory limit, such as 24GB or 22.5GiB. Default: this GPU's free memory.")
    ] = None,
    variant: Annotated[
        StepVariant,
        typer.Option(help="plain estimates the training step of common notebooks instead of this program's."),
    ] = StepVariant.workbench,
    trace: Annotated[
        bool | None,
        typer.Option(
            help="Trace one training step (about 10 s, once) if the peak is only an estimate. Default: "
            "for models outside the catalog."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count parameters and bytes exactly and predict the training peak. Needs no GPU and no weights."""
    home = home_of(context)
    chosen = _recipe(home, model, recipe, assignments or [])
    budget = estimate_budget(vram)
    with FetchBar() as bar:
        skeleton = skeleton_of(home, chosen.model, bar.show)
    traces = TraceStore(home.cache / "traces")

    def priced() -> Price:
        return price(skeleton, chosen, budget, variant=variant.value, traced=traces, replays=True)

    try:
        result = priced()
    except WorkbenchError as error:
        if changes := suggested_fix(skeleton, Setup.of(chosen).adapter):
            cure = f"{error.cure} It works with {options_text(changes)}."
            raise WorkbenchError(error.message, cure, kind=error.kind) from error
        raise
    should_trace = skeleton_in_catalog(chosen.model) is None if trace is None else trace
    if should_trace and _trace(traces, result):
        result = priced()
    if as_json:
        print_json(result.as_json())
    else:
        _show(result, budget.free_bytes)


def estimate_budget(memory: str | None) -> MemoryBudget:
    """The memory to estimate for: an amount as typed, or by default the first GPU's free memory, if there is one."""
    gpu = first_gpu()
    free = parse_memory(memory) if memory else gpu.free_bytes if gpu else None
    # A typed amount may be of another machine's GPU.
    available = host_memory()[1] if gpu and not memory else None
    # Without a GPU, estimate for one with bfloat16 units, not for this machine's processor.
    return MemoryBudget(gpu_device(gpu), free, host_bytes=available)


def _trace(traces: TraceStore, result: Price) -> bool:
    """Trace the training steps whose peak is only an estimate; returns whether one was traced."""
    recipes = result.worth_tracing
    for count, recipe in enumerate(recipes):
        words = f"Tracing one training step of {printable(result.skeleton.architecture)} (once, about 10 s) …"
        if count == 0 and result.is_by_formula:
            words = f"≈ {gib(result.peak.device_bytes, 2)} ±{100 * result.doubt:.0f} % estimated. {words}"
        errors.print(Text(words, "dim"))
        try:
            traces.trace(result.skeleton, recipe, result.budget.device, result.step.variant)
        except WorkbenchError as error:
            errors.print(Text(printable(f"{error.message} {error.cure}"), "dim"))
            return count > 0
    return bool(recipes)


def _recipe(home: Home, model: str, name: str | None, assignments: list[str]) -> Recipe:
    base = recipe_from(home, name, None) if name else Recipe()
    return edit(base, {"model.source": model, **dict(parse_assignment(text) for text in assignments)})


def _reserved(peak: Peak) -> str:
    """What PyTorch's allocator reserves: ``5.12 GiB``, or from the least to the most as records vary in length."""
    ends = [gib(size, 2) for size in peak.reserved_range or (peak.reserved_bytes,)]
    return " to ".join(dict.fromkeys(ends))


def _phase(peak: Peak, phase: Phase) -> str:
    other = peak.others[phase]
    text = f"≈ {gib(other.allocated_bytes, 2)} allocated, {gib(other.reserved_bytes, 2)} reserved"
    return f"{text}: the highest of the run" if peak.highest_phase == phase else text


def _show(result: Price, free: int | None) -> None:
    adapter, base, peak = result.adapter, result.base, result.peak
    table = Table(box=None, show_header=False, pad_edge=False)
    trained = f"{adapter.trainable_parameters:,} of {adapter.total_parameters:,}"
    reserved = _reserved(peak)
    known_by = f"{peak.method}, ±{100 * result.doubt:.0f} %"
    rows = [
        ("model", f"{result.recipe.model.source}  {result.skeleton.architecture}"),
        *([("stored", result.stored.label)] if result.stored else []),
        ("parameters", f"{result.skeleton.parameters:,}"),
        ("trainable", f"{trained} · {adapter.trainable_percent:.4f} %"),
        ("adapter file", f"{file_size(adapter.file_bytes, 2)} ({adapter.dtype})"),
        (
            "base",
            f"{file_size(base.footprint_bytes, 2)} by get_memory_footprint(), "
            f"{file_size(base.true_bytes, 2)} in memory",
        ),
        (
            "training peak",
            f"≈ {gib(peak.allocated_bytes, 2)} allocated, {reserved} reserved ({known_by})",
        ),
        *(("", f"{gib(size, 2):>11}  {name.replace('_', ' ')}") for name, size in peak.terms.items() if size),
        *((f"{phase} peak", _phase(peak, phase)) for phase in peak.others),
    ]
    if free is not None and result.fit is not None:
        rows.append(("fit", f"{result.fit} in {gib(free, 2)}"))
    rows += [("auto", reason) for reason in result.choice.reasons]
    if result.rule_of_thumb:
        rows.append(("rule of thumb", result.rule_of_thumb.label))
    for name, value in rows:
        table.add_row(Text(name, style="dim"), Text(printable(value)))
    console.print(table)
    if result.stored_note:
        console.print(Text(printable(result.stored_note)), soft_wrap=True)
    if result.host_note:
        console.print(Text(result.host_note), soft_wrap=True)
    if result.objective_note:
        console.print(Text(printable(result.objective_note)), soft_wrap=True)
    if result.stored_refusal:
        words = f"Cannot be trained like this: {result.stored_refusal}"
        console.print(Text.assemble(("! ", "yellow"), printable(words)), soft_wrap=True)
    for text in filter(None, (adapter.left_out_text, adapter.unmatched_text)):
        console.print(Text(printable(text)), soft_wrap=True)
    for notice in result.notices:
        console.print(Text(printable(notice)))
    if base.not_quantised:
        console.print(Text(f"Not quantized (not supported): {printable(', '.join(base.not_quantised))}."))
    for suggestion in result.suggestions:
        console.print(Text(f"· {suggestion.label}: {gib(suggestion.peak_bytes, 2)}, costs {suggestion.cost}"))
