"""The prompts that other tools write around instructions, as chat templates.

A prompt is given by format strings with ``{instruction}``, ``{input}`` and ``{system}``, as in Axolotl. The templates
use ``begin`` and ``end``, which a custom template gets from the tokenizer (:mod:`workbench.data.templates.lookup`).
"""

import json
import re
from dataclasses import dataclass

# The wording of Stanford Alpaca (Taori et al. 2023).
_TASK = "Below is an instruction that describes a task"
_WITH_INPUT = ", paired with an input that provides further context"
_RESPOND = ". Write a response that appropriately completes the request."
_PLACES = re.compile(r"\{(instruction|input|system)\}")


@dataclass(frozen=True)
class PromptFormat:
    """How a record of instruction, input and response is written.

    Attributes:
        turn: the prompt of a record with an input; ``no_input`` of one without.
        system: what a record's own system prompt is written as.
        opening: the text before a record without a system prompt; ``opening_no_input`` before one without an input.
    """

    turn: str
    no_input: str
    system: str = "{system}"
    opening: str = ""
    opening_no_input: str = ""

    def as_template(self) -> str:
        """The format as a chat template in Jinja."""
        opening = "".join(
            (
                "{%- if messages[0].role != 'system' %}{% if messages[0].input %}{{- ",
                json.dumps(self.opening),
                " }}{% else %}{{- ",
                json.dumps(self.opening_no_input),
                " }}{% endif %}{% endif %}\n",
            )
        )
        return (
            "{{- begin }}\n"
            + (opening if self.opening or self.opening_no_input else "")
            + "{%- for message in messages %}\n"
            + "{%- if message.role == 'system' %}{{- "
            + _jinja(self.system, {"system": "message.content"})
            + " }}\n{%- elif message.role == 'user' %}{% if message.input %}{{- "
            + _jinja(self.turn, {"instruction": "message.instruction", "input": "message.input"})
            + " }}{% else %}{{- "
            + _jinja(self.no_input, {"instruction": "message.content"})
            + " }}{% endif %}\n{%- else %}{{- message.content + end + ('' if loop.last else '\\n') }}{% endif %}\n"
            + "{%- endfor %}"
        )


def alpaca_style(style: str) -> PromptFormat | None:
    """Alpaca's prompt in one of the styles of Axolotl's ``type: alpaca:STYLE``; None if there is no such style."""
    turns = {
        "instruct": (
            "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
            "### Instruction:\n{instruction}\n\n### Response:\n",
            "{system}\n\n",
        ),
        "chat": (
            "USER: {instruction}\n{input}\nASSISTANT:",
            "USER: {instruction}\nASSISTANT:",
            "SYSTEM: {system}\n",
        ),
        "chatml": (
            "<|im_start|>user\n{instruction}\n{input}<|im_end|>\n<|im_start|>assistant\n",
            "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
            "<|im_start|>system\n{system}<|im_end|>\n",
        ),
        "phi": (
            "<|user|>\n{instruction}<|end|>{input}<|assistant|>",
            "<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
            "<|system|>\n{system}<|end|>\n",
        ),
    }
    if style not in turns:
        return None
    turn, no_input, system = turns[style]
    openings = (_TASK + _WITH_INPUT + _RESPOND, _TASK + _RESPOND)
    with_input, without = (system.replace("{system}", opening) for opening in openings)
    return PromptFormat(turn, no_input, system, with_input, without)


def _jinja(text: str, names: dict[str, str]) -> str:
    """A format string as a Jinja expression; a place without a name is empty."""
    parts = _PLACES.split(text)
    # Of what ``split`` returns, every second one is a place.
    terms = [json.dumps(part) if number % 2 == 0 else names.get(part, '""') for number, part in enumerate(parts)]
    return " + ".join(term for term in terms if term != '""') or '""'
