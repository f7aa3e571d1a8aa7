"""What users read names things as the field does: none of the phrases that were retired comes back.

Looked through are the help of every command, every key's label and tooltip, the help of every field of a recipe, every
text in the code of the program and its screens, and the README.
"""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.binding import Binding
from typer.main import get_command
from typer.testing import CliRunner

import screens
from workbench.commands.app import app
from workbench.recipe.schema import Recipe

ROOT = Path(__file__).resolve().parents[1]

# Each with the words that took its place.
RETIRED = {
    r"in hand": "current, selected",
    r"line[sd]? (\S+ ){0,4}up\b(?! with)|lining up": "queue, add to queue",
    r"go(es)? on|went on|going on": "resume, is running",
    r"(?:let|lets|letting) (it|one|them|a run|the run|the queue) (go|train|run)": "resume, is running",
    r"(?:stands?|stood|standing) still": "pause, paused",
    r"(?:runs?|that|what|nothing|entry \S+) waits?\b|\d+ waits?\b|(?:is|are) held\b": "queued, on hold",
    r"free the memory|gives? (\S+ ){0,3}back|given back": "release GPU memory",
    r"(?:does|do) not obey|the harder stop": "isn't responding, force-kill",
    r"another peak|train for more or fewer": "change learning rate, change max steps",
    r"write one after|end it, keep": "save checkpoint, stop and save",
    # A judge is a model that compares replies: the noun of the field.
    r"judg(?:es|ed|ing)\b(?! favor)|judges? (?:base|against|it|them|which|only)": "evaluate, check fit, rate",
    r"\d has it|chats with it\b": "details in Runs (7), 6 to chat",
    r"of the base / |computes in|computed in": "(base) →, compute dtype",
    r"not known|no MFU": "unknown, n/a",
    r"the curve begins|nothing is training": "loss appears after step 1, ready to train",
    r"anew": "again, recomputed",
    r"nobody|who else|(?:is|are|was|were|be) told|told of|tells (it|of|us)": "none, also log metrics to",
    r"follow(s|ed|ing)? (a|one|the|some|training) (training )?steps?|followed steps?|by formula": "trace, estimate",
    r"pric(e|es|ed|ing) (for|at|the|of|a|with)|(?:is|are|be|was) priced": "estimate",
    r"peak in the|as LoRA|LoRA-16|kept free": "peak during, 16-bit LoRA, headroom",
    r"does so|do so|lists others|O chooses": "apply, other options",
    r"counts (only )?(for|where)|by epochs|also train\b": "used only with, unlimited (use epochs), extra modules",
    r"as (they|it) (are|is|will be) fed|before the template|(?:are|be) fed": "formatted training text, raw records",
    r"half up to|half of all|of all have": "median, p99, max",
    r"held out too|unusable|without reply|lost reply": "train/eval overlap, invalid, without response",
    r"no bundled set|and no file here|bundled set": "no such file or bundled dataset",
    r"published as": "dtype",
    r"talk(s|ing)? to|who answers|ready to be asked": "chat with, choose model",
    r"tokens at most|a sum of|add(s|ed|ing)? (\S+ ){0,2}adapters? up": "max new tokens, combine adapters",
    r"lay(s|ing)? (\S+ ){0,3}over|over each other|as a table": "compare, export metrics",
    r"came? of|became of|other way round": "results, reverse sort",
    r"nothing is left of|did not work|and its kin|and their like": "removes partial files, error, compatible",
    r"the engine has (?!no|ended|run)|last words": "runs in the background, the log",
    r"broke (\S+ ){0,2}off|breaks off": "aborted, interrupted",
    r"need not be made again|what is kept|nothing is kept|(?:are|is) not kept|kept as": "cached files",
    r"knobs?": "setting",
    r"all the same": "anyway",
    r"for want of|of yours|be had|a fresh|mend(s|ed|ing)?": "plain verbs",
    r"without a word|says? which|what there is|there is to": "plain verbs",
    r"(?:records|tokens|rows?|bytes|seconds|bits|memory) an? (step|record|epoch|second|parameter|line|batch)": "per",
    r"in all(?= *[.,;:)]| *$)": "total",
    r"(?<!there )(?<!this )(?:is|are) no (?!longer|adapter in)(?=[a-z])": "is not a",
    r"as it was|as was|that of the|those of the": "plain verbs",
    r"none is held out|by hand where|puts? (\S+ ){0,3}in its place": "plain verbs",
    r"data sets?": "dataset",
}
_PATTERNS = [(re.compile(rf"\b(?:{phrase})", re.IGNORECASE), instead) for phrase, instead in RETIRED.items()]


def retired_in(texts: Iterator[tuple[str, str]]) -> list[str]:
    """Where a retired phrase is read: ``place: "the phrase" (what to say instead) in text``."""
    return [
        f'{place}: "{match[0]}" ({instead}) in {text.strip()[:160]!r}'
        for place, text in texts
        for pattern, instead in _PATTERNS
        if (match := pattern.search(text))
    ]


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def command_help() -> Iterator[tuple[str, str]]:
    runner = CliRunner()
    for path in commands(get_command(app)):
        shown = runner.invoke(app, [*path, "--help"], env={"COLUMNS": "240"})
        assert shown.exit_code == 0, path
        yield " ".join(path), " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown.output).split())


def key_texts() -> Iterator[tuple[str, str]]:
    for found in pkgutil.walk_packages(screens.__path__, "screens."):
        module = importlib.import_module(found.name)
        for owner, holder in [
            (found.name, vars(module)),
            *((n, vars(c)) for n, c in vars(module).items() if isinstance(c, type)),
        ]:
            for value in (holder.get("BINDINGS"), holder.get("CONTROLS")):
                for one in value or ():
                    if isinstance(one, Binding):
                        yield f"{owner} {one.key}", f"{one.description}. {one.tooltip}"


def field_help() -> Iterator[tuple[str, str]]:
    for section, info in Recipe.model_fields.items():
        for name, field in info.annotation.model_fields.items():  # type: ignore[union-attr]
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            yield f"{section}.{name}", f"{field.description}. {extra.get('up', '')}"


def code_texts() -> Iterator[tuple[str, str]]:
    """Every text of more than one word, docstrings left out; what is filled in stands as ``{}``."""
    for folder in ("screens", "workbench"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr):
                    skipped.update(map(id, node.values))
            for node in ast.walk(tree):
                text = _text(node)
                if id(node) not in skipped and " " in text:
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", text  # type: ignore[attr-defined]


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def readme() -> Iterator[tuple[str, str]]:
    for number, line in enumerate((ROOT / "README.md").read_text(encoding="utf-8").splitlines(), 1):
        yield f"README.md:{number}", line


def pages() -> Iterator[tuple[str, str]]:
    for page in (ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            yield f"{page.relative_to(ROOT)}:{number}", re.sub(r"`[^`]*`", "", line)


@pytest.mark.parametrize("texts", [command_help, key_texts, field_help, code_texts, readme])
def test_no_retired_phrase_is_read(texts) -> None:
    found = retired_in(texts())
    assert not found, "\n" + "\n".join(found)


# Plain English in an explanation, which these phrases are not in a label or an error.
_FINE_IN_PROSE = re.compile(
    r"(?:that|those) of the|nobody|(?:is|are|be|was) (?:no|told|priced|held|not kept)|prices? (?:the|a)|nothing waits"
    r"|do so|does so|comput(?:ed|es) in|counts (?:only )?(?:for|where)|says? which|what there is|by formula"
    r"|all the same|a fresh",
    re.IGNORECASE,
)


def test_no_retired_phrase_is_in_the_pages() -> None:
    found = [line for line in retired_in(pages()) if not _FINE_IN_PROSE.fullmatch(line.split('"')[1].strip())]
    assert not found, "\n" + "\n".join(found)


def test_the_texts_are_found() -> None:
    """Each way of looking finds what it is to look through."""
    assert any(place == "queue add" for place, _ in command_help())
    assert any("Save checkpoint" in text for _, text in key_texts())
    assert dict(field_help())["adapter.r"].startswith("Rank")
    assert any("Loaded preset" in text for _, text in code_texts())
    assert retired_in(iter([("here", "The recipe in hand.")]))
