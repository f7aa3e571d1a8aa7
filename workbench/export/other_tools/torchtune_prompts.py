"""The text that torchtune's tokenizers make of a conversation, as chat templates.

torchtune's tokenizers write turns themselves, whatever template the model's own tokenizer has. A prompt template in the
configuration, and the wording of Alpaca in its Alpaca datasets, come inside of that. ``begin`` and ``end`` are the
tokenizer's (:mod:`workbench.data.templates.lookup`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

_TASK = "Below is an instruction that describes a task"
_INPUT = ", paired with an input that provides further context"
_RESPOND = ". Write a response that appropriately completes the request.\n\n### Instruction:\n"
ALPACA = (
    (_TASK + _INPUT + _RESPOND, "\n\n### Input:\n", "\n\n### Response:\n"),
    (_TASK + _RESPOND, "\n\n### Response:\n"),
)
"""The prompt of a record with an input, around instruction and input, and of one without, around the instruction."""


@dataclass(frozen=True)
class Turns:
    """The texts before and after each turn.

    Attributes:
        between: after a response that is not the last one; ``None`` if that is the end of a response alone.
        end: the end of a response, as Jinja.
        trims: whether the content of turns is trimmed.
        begins: whether the text begins with the tokenizer's begin of sequence.
    """

    user: tuple[str, str] = ("", "")
    assistant: str = ""
    system: tuple[str, str] = ("", "")
    end: str = "end"
    between: str = ""
    trims: bool = False
    begins: bool = True

    def as_template(self, *, is_alpaca: bool) -> str:
        """The chat template in Jinja.

        Args:
            is_alpaca: write the prompt of a record in the wording of Alpaca.
        """
        content = "message.content | trim" if self.trims else "message.content"
        plain = f"{{{{- {_text(self.user[0])} + {content} + {_text(self.user[1])} }}}}"
        user = plain
        if is_alpaca:
            (first, second, third), (bare, rest) = ALPACA
            # A tokenizer that trims the content of a turn trims this whole prompt.
            stop, close = (third.rstrip(), rest.rstrip()) if self.trims else (third, rest)
            user = (
                f"{{%- if message.input %}}{{{{- {_text(self.user[0] + first)} + message.instruction + "
                f"{_text(second)} + message.input + {_text(stop + self.user[1])} }}}}{{% else %}}"
                f"{{{{- {_text(self.user[0] + bare)} + message.content + {_text(close + self.user[1])} }}}}"
                "{% endif %}"
            )
        return (
            ("{{- begin }}\n" if self.begins else "")
            + "{%- for message in messages %}\n{%- if message.role == 'system' %}"
            + f"{{{{- {_text(self.system[0])} + {content} + {_text(self.system[1])} }}}}\n"
            + "{%- elif message.role == 'user' %}"
            + f"{user}\n{{%- else %}}{{{{- {_text(self.assistant)} + {content} + {self.end} "
            + f"+ ('' if loop.last else {_text(self.between)}) }}}}\n{{%- endif %}}\n{{%- endfor %}}\n"
            + f"{{%- if add_generation_prompt %}}{{{{- {_text(self.assistant)} }}}}{{% endif %}}"
        )


def _text(text: str) -> str:
    return json.dumps(text)


_CHATML = Turns(
    ("<|im_start|>user\n", "<|im_end|>\n"),
    "<|im_start|>assistant\n",
    ("<|im_start|>system\n", "<|im_end|>\n"),
    '"<|im_end|>"',
    "\n",
    begins=False,
)
_INSTRUCT = Turns(("[INST] ", " [/INST] "), system=("<<SYS>>\n", "\n<</SYS>>\n\n"))
TOKENIZERS: Mapping[str, Turns] = {
    "llama2_tokenizer": _INSTRUCT,
    "mistral_tokenizer": replace(_INSTRUCT, system=("", "")),
    "gemma_tokenizer": Turns(),
    "llama3_tokenizer": Turns(
        ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
        '"<|eot_id|>"',
        trims=True,
    ),
    "qwen2_tokenizer": _CHATML,
    "qwen2_5_tokenizer": _CHATML,
    "qwen3_tokenizer": _CHATML,
    "phi3_mini_tokenizer": Turns(
        ("<|user|>\n", "<|end|>\n"), "<|assistant|>\n", ("<|system|>\n", "<|end|>\n"), '"<|end|>\\n<|endoftext|>"'
    ),
    # torchtune writes no end of a response; without one, a model would not learn to stop.
    "phi4_tokenizer": Turns(
        ("<|im_start|>user<|im_sep|>", "<|im_end|>"),
        "<|im_start|>assistant<|im_sep|>",
        ("<|im_start|>system<|im_sep|>", "<|im_end|>"),
        '"<|im_end|>"',
        begins=False,
    ),
}
"""The turns of each tokenizer, by the name of its builder."""

PROMPTS: Mapping[str, tuple[str, str]] = {
    "torchtune.data.GrammarErrorCorrectionTemplate": ("Correct this to standard English: ", "\n---\nCorrected: "),
    "torchtune.data.SummarizeTemplate": ("Summarize this dialogue:\n", "\n---\nSummary:\n"),
    "torchtune.data.QuestionAnswerTemplate": ("Question: ", "\n\nAnswer: "),
}
"""The texts around the user's turn of torchtune's prompt templates."""


def with_prompt(turns: Turns, tokenizer: str, given: object) -> Turns | None:
    """The turns with a prompt template of the configuration inside; None if it is not known.

    Args:
        tokenizer: the name of the tokenizer's builder: a template replaces the one that it has by itself.
        given: the name of a template, or the texts before and after the turns of each role.
    """
    outer = Turns() if tokenizer in ("llama2_tokenizer", "mistral_tokenizer") else turns
    if isinstance(given, str) and given in PROMPTS:
        around: Mapping[str, object] = {"user": PROMPTS[given]}
    elif isinstance(given, dict):
        around = given
    else:
        return None
    texts = {role: _pair(around.get(role, ("", ""))) for role in ("user", "assistant", "system")}
    user, assistant, system = texts["user"], texts["assistant"], texts["system"]
    if user is None or assistant is None or system is None or assistant[1]:
        return None
    return replace(
        outer,
        user=(outer.user[0] + user[0], user[1] + outer.user[1]),
        assistant=outer.assistant + assistant[0],
        system=(outer.system[0] + system[0], system[1] + outer.system[1]),
    )


def _pair(value: object) -> tuple[str, str] | None:
    if isinstance(value, list | tuple) and len(value) == 2:
        return str(value[0]), str(value[1])
    return None
