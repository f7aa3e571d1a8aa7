"""Exports a GGUF file with a Modelfile for Ollama, which has the training template and its parameters.

Ollama's templates are Go templates, not Jinja. The Go template is built from the text that the training template writes
before and after each turn, and is used only if it renders several test conversations identically.
"""

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

from workbench.data.records.conversation import BadRecord
from workbench.data.templates.template import Template
from workbench.export.work import Job, make_gguf

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODEL = "model.gguf"
_SYSTEM, _USER, _REPLY = "sYsTeMtExT", "uSeRtExT", "rEpLyTeXt"


@dataclass(frozen=True)
class TurnPattern:
    """The text that a template writes before and after the turns of each role.

    ``opening`` comes first if there is no system prompt. ``reply_header`` asks for a reply and comes before each.
    ``before_reply`` is what the model itself writes before its reply, such as the space after a colon.
    """

    before_system: str
    after_system: str
    opening: str
    before_user: str
    after_user: str
    reply_header: str
    before_reply: str
    after_reply: str

    def render(self, messages: list[dict[str, str]]) -> str:
        """Render a conversation as the Go template does: a last turn of the assistant is left open, to be continued."""
        system = next((m["content"] for m in messages if m["role"] == "system"), None)
        text = self.opening if system is None else self.before_system + system + self.after_system
        for number, message in enumerate(messages, 1):
            is_last = number == len(messages)
            if message["role"] == "user":
                text += self.before_user + message["content"] + self.after_user
            elif message["role"] == "assistant":
                text += self.reply_header + self.before_reply + message["content"]
                text += "" if is_last else self.after_reply
            if is_last and message["role"] != "assistant":
                text += self.reply_header
        return text

    def as_go(self) -> str:
        """The pattern as a Go template for Ollama, in the form of those in its own library."""
        before_system, after_system, opening, before_user, after_user, header, before_reply, after_reply = map(
            _go, astuple(self)
        )
        return (
            f"{{{{ if .System }}}}{before_system}{{{{ .System }}}}{after_system}{{{{ else }}}}{opening}{{{{ end }}}}"
            "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
            f'{{{{ if eq .Role "user" }}}}{before_user}{{{{ .Content }}}}{after_user}'
            f'{{{{ else if eq .Role "assistant" }}}}{header}{before_reply}{{{{ .Content }}}}'
            f"{{{{ if not $last }}}}{after_reply}{{{{ end }}}}{{{{ end }}}}"
            f'{{{{ if and $last (ne .Role "assistant") }}}}{header}{{{{ end }}}}{{{{ end }}}}'
        )


def make(job: Job) -> None:
    """Write ``model.gguf`` and ``Modelfile``."""
    merged = make_gguf(job, MODEL)
    pattern = pattern_of(merged.template)
    if pattern is None or '"""' in pattern.as_go():
        pattern = None
        job.notices.append(
            "The template cannot be converted for Ollama, which then guesses it from the GGUF file. "
            "Compare its prompts with the run's before relying on it."
        )
    context = min(merged.context, job.recipe.data.max_length)
    job.write("Modelfile", modelfile(merged.template, pattern, merged.tokenizer, context, job.facts.base.licence))
    job.command = f"ollama create {job.run.id.lower()} -f Modelfile"
    if job.request.type in ("f16", "bf16"):
        job.notices.append(f"For a smaller model: {job.command} --quantize q4_K_M")


def modelfile(
    template: Template,
    pattern: TurnPattern | None,
    tokenizer: "PreTrainedTokenizerBase",
    context: int,
    licence: str = "",
) -> str:
    """Write the Modelfile's text.

    Args:
        pattern: the template; without it, Ollama guesses one from the GGUF file.
        context: the longest record that was trained, in tokens; more would take memory for what was never trained.
        licence: of the base; empty if it is not known.
    """
    lines = [f"FROM ./{MODEL}"]
    if pattern is not None:
        lines.append(f'TEMPLATE """{pattern.as_go()}"""')
    if template.system and '"""' not in template.system:
        lines.append(f'SYSTEM """{template.system}"""')
    for stop in dict.fromkeys(tokenizer.convert_ids_to_tokens(list(template.end_token_ids))):
        lines.append(f"PARAMETER stop {_quoted(stop)}")
    lines.append(f"PARAMETER num_ctx {context}")
    if licence and '"""' not in licence:
        lines.append(f'LICENSE """{licence}"""')
    return "\n".join(lines) + "\n"


def pattern_of(template: Template) -> TurnPattern | None:
    """The turn pattern of a template; None if the template cannot be expressed as one."""
    # Without the default system prompt, which the Modelfile states on its own.
    bare = replace(template, system=None)
    bos = _added_bos(bare)
    try:
        pattern = _derive_pattern(bare, bos)
        for messages in _test_conversations():
            expected = bare.render(messages, add_generation_prompt=True).removeprefix(bos)
            if pattern.render(messages) != expected:
                return None
    except (BadRecord, ValueError):
        return None
    return pattern


def _derive_pattern(bare: Template, bos: str) -> TurnPattern:
    """Derive the pattern from rendered placeholders; raises ValueError if the template omits one of them."""
    one = bare.render([_turn("user", _USER)], add_generation_prompt=True).removeprefix(bos)
    two = bare.render(
        [_turn("user", _USER), _turn("assistant", _REPLY), _turn("user", _USER)], add_generation_prompt=True
    ).removeprefix(bos)
    opening_and_user, after_user = _cut(one, _USER)
    before_reply, after_first = _cut(two.removeprefix(one), _REPLY)
    if not two.startswith(one) or not after_first.endswith(_USER + after_user):
        raise ValueError
    between = after_first.removesuffix(_USER + after_user)
    # Between a reply and the next user turn, the part that also comes before the first user turn belongs to user turns;
    # the rest ends the reply.
    shared = _common_end(opening_and_user, between)
    before_user, after_reply = shared, between.removesuffix(shared)
    opening = opening_and_user.removesuffix(shared)
    with_system = bare.render(
        [_turn("system", _SYSTEM), _turn("user", _USER)], add_generation_prompt=True
    ).removeprefix(bos)
    before_system, rest = _cut(with_system, _SYSTEM)
    if not rest.endswith(before_user + _USER + after_user):
        raise ValueError
    after_system = rest.removesuffix(before_user + _USER + after_user)
    unasked = bare.render([_turn("user", _USER)]).removeprefix(bos)
    header = one.removeprefix(unasked) if one.startswith(unasked) and after_user.endswith(one[len(unasked) :]) else ""
    return TurnPattern(
        before_system=before_system,
        after_system=after_system,
        opening=opening,
        before_user=before_user,
        after_user=after_user.removesuffix(header),
        reply_header=header,
        before_reply=before_reply,
        after_reply=after_reply,
    )


def _added_bos(template: Template) -> str:
    """The begin of sequence if this tokenizer, and therefore llama.cpp, adds one to every prompt; else empty."""
    tokenizer = template.tokenizer
    ids = tokenizer("a")["input_ids"]
    is_added = tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
    return str(tokenizer.bos_token) if is_added else ""


def _test_conversations() -> list[list[dict[str, str]]]:
    talk = [
        _turn("user", "Why is the sky blue?"),
        _turn("assistant", "Because of Rayleigh."),
        _turn("user", "And red?"),
    ]
    longer = [*talk, _turn("assistant", "In the evening."), _turn("user", "Thanks.")]
    system = _turn("system", "Be brief.")
    return [talk[:1], talk, longer, [system, *talk[:1]], [system, *longer]]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _cut(text: str, probe: str) -> tuple[str, str]:
    before, separator, after = text.partition(probe)
    if not separator:
        raise ValueError
    return before, after


def _common_end(first: str, second: str) -> str:
    length = 0
    while length < min(len(first), len(second)) and first[-1 - length] == second[-1 - length]:
        length += 1
    return first[len(first) - length :]


def _go(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
