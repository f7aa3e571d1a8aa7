"""Compares a GGUF file's replies in llama.cpp with the merged model's own probabilities for the same tokens.

llama.cpp runs in a process of its own, whose program is this module: its library may crash, and its package must not be
imported next to torch.
"""

import json
import math
import os
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.export.gguf.guard import run_guarded
from workbench.export.request import Figures, GgufType
from workbench.export.weights import Merged
from workbench.models.child import report

if TYPE_CHECKING:
    import torch

# Tokens of each reply, and the most probable ones that are compared at each.
_TOKENS, _CHOICES = 5, 40
# The largest mean KL divergence, in nats, that rounding to each type and llama.cpp's own arithmetic can explain, and
# what the arithmetic of a model in 16 bits adds.
_MAX_DIVERGENCE: dict[GgufType, float] = {"f16": 1e-2, "q8_0": 5e-2, "q5_k_m": 0.25, "q4_k_m": 0.6}
_SIXTEEN_BITS = 0.1
_TEXTS = ("In 1984, 12345 + 6789 = 19134!", "don't won't I'LL über Öl 東京 🧭", "def f(x):\n    return x**2\n")


def check_answers(
    merged: Merged, file: Path, kind: GgufType, packages: Path, adapter: Path | None = None
) -> tuple[str, Figures, list[str]]:
    """Let llama.cpp reply with the file, and compare with the merged model, which is released afterwards.

    Args:
        packages: the folder that has llama.cpp's Python package.
        adapter: a GGUF file with an adapter, which is added to the model in ``file``.

    Returns:
        The result as a sentence and as numbers, and notices for the user.

    Raises:
        WorkbenchError: llama.cpp cannot load the file, or its probabilities differ by more than rounding explains.
    """
    import torch

    assert merged.model is not None
    report("checking", None, f"llama.cpp replies with {file.name}")
    places = [place for prompt in merged.prompts for place in _places(merged, prompt)]
    answered = _ask([ids for ids, _ in places], file, packages, adapter)
    divergences, agreements = [], []
    for (_, expected), choices in zip(places, answered["choices"], strict=True):
        if choices:
            divergences.append(_divergence(expected, choices))
            agreements.append(float(int(expected.argmax()) == choices[0][0]))
    most = _MAX_DIVERGENCE[kind] + (0.0 if merged.model.dtype == torch.float32 else _SIXTEEN_BITS)
    merged.model = None
    divergence = sum(divergences) / len(divergences) if divergences else math.nan
    agreement = sum(agreements) / len(agreements) if agreements else math.nan
    figures: Figures = {
        "llama_cpp_against_merged": {
            "divergence": divergence,
            "agreement": agreement,
            "positions": float(len(divergences)),
        }
    }
    subject = f"GGUF ({kind})" if adapter is None else f"LoRA on a GGUF of the base ({kind})"
    sentence = (
        f"{subject} in llama.cpp vs. merged: KL divergence {divergence:.2g} nats, same first choice at "
        f"{agreement:.1%} of {len(divergences)} tokens of replies."
    )
    if not divergence <= most:
        raise WorkbenchError(
            f"The GGUF file does not reply as the exported model. {sentence}",
            "Export it as `merged`, which has the exact weights, and report this with the model's name.",
            kind="export_check",
        )
    wrong = [text for text, ids in zip(_TEXTS, answered["texts"], strict=True) if ids != _own_tokens(merged, text)]
    notices = []
    if wrong:
        notices.append(
            f"llama.cpp splits {len(wrong)} of {len(_TEXTS)} test texts into other tokens than the training did, such "
            f"as {wrong[0]!r}: replies may differ."
        )
    return sentence, figures, notices


def _own_tokens(merged: Merged, text: str) -> list[int]:
    return list(merged.tokenizer(text, add_special_tokens=False)["input_ids"])


def _places(merged: Merged, prompt: list[int]) -> "list[tuple[list[int], torch.Tensor]]":
    """The beginnings of the model's greedy reply, each with the log-probabilities of the next token."""
    import torch

    assert merged.model is not None
    ids, places = list(prompt), []
    for _ in range(_TOKENS):
        with torch.inference_mode():
            expected = merged.model(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        places.append((list(ids), expected))
        ids.append(int(expected.argmax()))
    return places


def _ask(prompts: list[list[int]], file: Path, packages: Path, adapter: Path | None) -> dict[str, Any]:
    """What llama.cpp answers: the most probable next tokens of each prompt, and its tokens of the texts."""
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "question.json", Path(folder) / "answer.json"
        request = {
            "packages": str(packages),
            "model": str(file),
            "adapter": str(adapter or ""),
            "prompts": prompts,
            "texts": _TEXTS,
        }
        question.write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-P", "-m", "workbench.export.gguf.answers", str(question), str(answer)]
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]))
        try:
            run_guarded(command, "llama.cpp", lambda line: None, {"PYTHONPATH": path})
        except WorkbenchError as error:
            raise WorkbenchError(
                f"llama.cpp cannot reply with the GGUF file: {error.message}",
                "Export it as `merged`; and report this with the model's name.",
                kind="export_check",
            ) from None
        answered: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return answered


def _divergence(expected: "torch.Tensor", choices: list[tuple[int, float]]) -> float:
    """KL divergence over the tokens that llama.cpp named, and all others as one."""
    import torch

    p = expected[torch.tensor([token for token, _ in choices])]
    q = torch.tensor([value for _, value in choices]).clamp(min=-60)
    rest_p, rest_q = ((1 - part.exp().sum()).clamp(min=1e-9) for part in (p, q))
    return max(0.0, float((p.exp() * (p - q)).sum() + rest_p * (rest_p.log() - rest_q.log())))


def _main() -> None:
    """Load the file of the question in llama.cpp, and write the answer: paths on the command line."""
    question, answer = map(Path, sys.argv[1:])
    request = json.loads(question.read_text(encoding="utf-8"))
    sys.path.append(request["packages"])
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = request["model"]
    if request["adapter"]:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = request["adapter"], 1.0
        parameters.lora_adapters = [adapter]
    parameters.n_ctx = max(map(len, request["prompts"])) + 64
    parameters.n_parallel = 1
    parameters.n_gpu_layers = 0
    parameters.warmup = False
    parameters.cpuparams.n_threads = os.cpu_count() or 1
    server = xllamacpp.Server(parameters)
    answered = {
        "choices": [_next_tokens(server, prompt) for prompt in request["prompts"]],
        "texts": [_tokens_of(server, text) for text in request["texts"]],
    }
    answer.write_text(json.dumps(answered), encoding="utf-8")
    # Without the library's own end, at which its threads may crash.
    os._exit(0)


def _next_tokens(server: Any, prompt: list[int]) -> list[tuple[int, float]]:
    """The most probable next tokens with their log-probabilities; empty if the first is only a part of a character."""
    given = server.handle_completions({"prompt": prompt, "n_predict": 1, "n_probs": _CHOICES, "temperature": 0})
    content = (given["choices"][0].get("logprobs") or {}).get("content") or [{}]
    return [(int(one["id"]), float(one["logprob"])) for one in content[0].get("top_logprobs", [])]


def _tokens_of(server: Any, text: str) -> list[int]:
    body = json.dumps({"content": text, "add_special": False}).encode()
    request = urllib.request.Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        tokens: list[int] = json.load(reply)["tokens"]
    return tokens


if __name__ == "__main__":
    _main()
