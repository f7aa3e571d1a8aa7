"""``loraworkbench inspect``: print the module tree of a model, from its configuration."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from workbench.commands.common import JsonOption, console, errors, home_of, print_json, printable
from workbench.commands.output.fetching import FetchBar
from workbench.errors import WorkbenchError
from workbench.models.first_look import FirstLook, first_look
from workbench.models.skeleton import Module, Skeleton
from workbench.models.skeleton_json import skeleton_to_json
from workbench.models.stored_quantization import stored_quantization
from workbench.models.trees import skeleton_of
from workbench.progress import never_cancelled
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

# The model's files say something, although there is no tree of it.
_WITHOUT_TREE = {"unknown_architecture", "untrusted_code", "model_config", "model_not_causal", "missing_package"}
_ELBOW, _TEE, _BAR, _SPACE = "└─ ", "├─ ", "│  ", "   "


def inspect(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A Hugging Face id, a folder (config.json is enough), or a GGUF file.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the hub repository.")] = None,
    subfolder: Annotated[
        str | None, typer.Option(help="Folder inside the repository or folder that has the model.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the model's own Python code run on this machine.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the module tree with classes, shapes and parameters, and what is known of the weights; loads no weights."""
    changes = {"revision": revision, "subfolder": subfolder, "trust_remote_code": trust_remote_code}
    section = edit(Recipe(), {"model.source": model, **{f"model.{key}": value for key, value in changes.items()}}).model
    if trust_remote_code:
        errors.print(Text("The model's own Python code may run on this machine (--trust-remote-code).", "yellow"))
    home = home_of(context)
    with FetchBar() as bar:
        try:
            skeleton = skeleton_of(home, section, bar.show)
        except WorkbenchError as error:
            if not as_json and error.kind in _WITHOUT_TREE:
                _print_look(first_look(home, section, bar.show, never_cancelled))
            raise
        look = first_look(home, section, bar.show, never_cancelled)
    stored = stored_quantization(skeleton.config)
    if as_json:
        more = {"stored_quantization": stored.label} if stored else {}
        print_json(
            {**skeleton_to_json(skeleton), "parameters": skeleton.parameters, **more, "weights": _look_as_json(look)}
        )
        return
    console.print(Text(f"{printable(skeleton.architecture)}  {skeleton.parameters:,} parameters", style="bold"))
    _print_look(look)
    if stored:
        console.print(
            Text(f"Weights stored as {printable(stored.label)}; shapes are given as if they were not quantized.")
        )
    if kinds := dict.fromkeys(part.kind for part in skeleton.frozen_parts):
        trained = f"marked frozen get no adapter in training on text: {printable(', '.join(kinds))}."
        console.print(Text(f"Parts {trained}"))
    for line in _lines(skeleton.root, "", skeleton):
        console.print(line, no_wrap=True, overflow="ellipsis")


def _print_look(look: FirstLook) -> None:
    licence = (look.licence or "unknown") + ", gated" * look.gated
    facts = {"Weights": look.weights_text, "License": licence, "Read from": look.read_from}
    for name, value in facts.items():
        if value:
            console.print(Text(f"{name}: {printable(value)}"))
    if look.note:
        console.print(Text(printable(look.note), style="yellow"))


def _look_as_json(look: FirstLook) -> dict[str, object]:
    facts = asdict(look)
    return {"license" if name == "licence" else name: value for name, value in facts.items()}


def _lines(module: Module, indent: str, skeleton: Skeleton) -> Iterator[Text]:
    for index, child in enumerate(module.children):
        last = index == len(module.children) - 1
        yield Text(indent + (_ELBOW if last else _TEE)) + _describe(child, skeleton)
        yield from _lines(child, indent + (_SPACE if last else _BAR), skeleton)


def _describe(module: Module, skeleton: Skeleton) -> Text:
    times = f" ×{module.count}" if module.count > 1 else ""
    shapes = ", ".join(
        f"{tensor.name} {'×'.join(map(str, tensor.shape))}{' tied' if tensor.tied_to else ''}"
        for tensor in module.tensors
        if not tensor.is_buffer
    )
    total = module.parameters * module.count
    share = f"{total:,} · {100 * total / max(skeleton.parameters, 1):.2f} %" if total else ""
    return Text.assemble(
        (printable(module.label) + times, "bold"),
        "  ",
        (printable(module.class_name), "cyan"),
        f"  {printable(shapes)}" if shapes else "",
        (f"  frozen ({printable(module.facts['frozen'])})" if "frozen" in module.facts else "", "yellow"),
        (f"  {share}", "dim"),
    )
