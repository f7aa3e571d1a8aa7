"""Chat, measured on one model in one process: ``python -m bench.chat [--model M] [--home DIR] [--json FILE]``.

Decoding is timed with plain ``model.generate``, with our replies, and with our replies read by another process over the
engine's socket: on the same weights, in turns, greedy and without an end, so that the same tokens are made. What is
told is our speed as a share of plain. Then three adapters on one base: how long a switch takes, and what lies in memory
before and after.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.circumstances import circumstances, error_of_median
from bench.streamed import Asked, a_reader
from workbench.data.templates.template import Template
from workbench.engine.client.protocol import Message, ReplyPiece, Sampling
from workbench.engine.generation.generation import generate_reply
from workbench.engine.model.adapters import ActiveAdapters, merge, use_adapters
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.load_base import load_base
from workbench.models.tokenizers import pad_token_id
from workbench.recipe.sections.model import DEFAULT_MODEL, ModelSection
from workbench.recipe.sections.quantization import QuantizationSection
from workbench.storage.paths import Home

QUESTION = [Message(role="user", content="Explain to a child why the sky is blue and why ships float.")]
ADAPTERS = 3


def loaded(home: Home, model: str, method: Any) -> LoadedBase:
    return load_base(
        home, ModelSection(source=model), QuantizationSection(method=method), lambda progress: None, lambda: False
    )


def make_adapters(base: LoadedBase, folder: Path) -> list[Path]:
    """Three random rank-16 adapters on all linear layers, saved as PEFT saves them."""
    import torch

    from workbench.recipe.sections.adapter import AdapterSection

    folders = []
    for number in range(ADAPTERS):
        peft = base.attach_new(AdapterSection())
        with torch.no_grad():
            for name, parameter in peft.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.01)
        folders.append(folder / f"adapter{number}")
        peft.save_pretrained(folders[-1])
    base.detach_all()
    return folders


@contextmanager
def no_end(base: LoadedBase) -> Iterator[None]:
    """Within, nothing ends a reply but its length."""
    from workbench.engine.generation import generation

    before, generation.end_tokens = generation.end_tokens, lambda *_: []
    try:
        yield
    finally:
        generation.end_tokens = before


def plain_reply(base: LoadedBase, template: Template, tokens: int) -> None:
    """So many tokens from ``model.generate``."""
    import torch

    prompt = template.encode_prompt([message.model_dump() for message in QUESTION])
    inputs = torch.tensor([prompt], device=base.device)
    with torch.inference_mode():
        base.active.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=[],
            pad_token_id=pad_token_id(base.tokenizer),
        )


def our_reply(base: LoadedBase, template: Template, tokens: int, emit: Callable[[ReplyPiece], None]) -> None:
    """So many tokens of a reply of ours."""
    generate_reply(base, template, QUESTION, Sampling(temperature=0, max_new_tokens=tokens), emit, threading.Event())


def streamed_reply(base: LoadedBase, template: Template, tokens: int, next_asked: Callable[[], Asked]) -> None:
    """As :func:`our_reply`, its pieces read by another process while it is made."""
    asked = next_asked()
    our_reply(base, template, tokens, asked.emit)
    asked.finished(None)


def speed(base: LoadedBase, tokens: int, reply: Callable[[int], None]) -> float:
    """Tokens a second after the first one, which is there when the model is called for the second."""
    calls: list[float] = []
    hook = base.model.register_forward_pre_hook(lambda *_: calls.append(time.perf_counter()))
    try:
        reply(tokens)
    finally:
        hook.remove()
    assert len(calls) == tokens
    return (tokens - 1) / (time.perf_counter() - calls[1])


def in_turns(base: LoadedBase, tokens: int, rounds: int) -> dict[str, float]:
    """Medians over the rounds of speeds and of shares of plain, and the standard error of such a share.

    A machine is not equally fast from one second to the next: turns are short, and another one begins each round.
    """
    template = Template.for_model(base.tokenizer)
    with no_end(base), a_reader() as next_asked:
        kinds: dict[str, Callable[[int], None]] = {
            "plain": lambda count: plain_reply(base, template, count),
            "ours": lambda count: our_reply(base, template, count, lambda piece: None),
            "streamed": lambda count: streamed_reply(base, template, count, next_asked),
        }
        for reply in kinds.values():
            speed(base, 8, reply)
        found: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(rounds):
            names = list(kinds)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                found[name].append(speed(base, tokens, kinds[name]))
    shares = {name: [ours / plain for ours, plain in zip(found[name], found["plain"], strict=True)] for name in kinds}
    return {
        **{name: statistics.median(speeds) for name, speeds in found.items()},
        "share": statistics.median(shares["ours"]),
        "streamed_share": statistics.median(shares["streamed"]),
        "share_error": error_of_median(shares["ours"]),
    }


def in_memory() -> int:
    """Bytes of the process, or on the GPU those that PyTorch has handed out."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    return int(psutil.Process(os.getpid()).memory_info().rss)


def switching(base: LoadedBase, folders: list[Path]) -> dict[str, float]:
    """Milliseconds of a switch, and bytes that three adapters add to a base of so many bytes."""
    before = in_memory()
    attach = [_milliseconds(base, folder) for folder in folders]
    after = in_memory()
    switches = [_milliseconds(base, folder) for _ in range(20) for folder in folders]
    return {
        "attach_ms": max(attach),
        "switch_ms": statistics.median(switches),
        "slowest_switch_ms": max(switches),
        "base_bytes": base.footprint,
        "adapters_bytes": sum((folder / "adapter_model.safetensors").stat().st_size for folder in folders),
        "added_bytes": after - before,
    }


def _milliseconds(base: LoadedBase, folder: Path) -> float:
    started = time.perf_counter()
    with use_adapters(base, ActiveAdapters(((folder, 1.0),))):
        return (time.perf_counter() - started) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--home", type=Path, default=None)
    parser.add_argument("--tokens", type=int, default=32, help="of a turn")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    home, result = Home.find(options.home), {}
    with tempfile.TemporaryDirectory() as temporary:
        base = loaded(home, options.model, "nf4")
        folders = make_adapters(base, Path(temporary))
        result["switching"] = switching(base, folders)
        voice = ActiveAdapters(((folders[0], 1.0),))
        measures: dict[str, Callable[[], Any]] = {"nf4, adapter": lambda: use_adapters(base, voice)}
        measures["nf4, adapter off"] = lambda: use_adapters(base, ActiveAdapters())
        for name, speak in measures.items():
            with speak():
                result[name] = in_turns(base, options.tokens, options.rounds)
        base = loaded(home, options.model, "none")
        with use_adapters(base, voice):
            result["16-bit, adapter"] = in_turns(base, options.tokens, options.rounds)
        merge(base, voice)
        result["16-bit, merged"] = in_turns(base, options.tokens, options.rounds)
    for name, figures in result.items():
        print(f"{name:18}", *(f"{key} {value:,.3f}" for key, value in figures.items()), sep="  ")
    if options.json:
        told = {
            **circumstances(),
            "model": options.model,
            "tokens": options.tokens,
            "rounds": options.rounds,
            "figures": result,
        }
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
