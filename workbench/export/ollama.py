"""GGUF file and Modelfile for Ollama: template and parameters are those of training.

Ollama's templates are Go's, not Jinja, so the Go one is made from what the template of training writes before and after
each role, and is taken only if it writes the same text for several conversations.
"""

from dataclasses import dataclass
from typing import Any

from workbench.data.records.conversation import BadRecord
from workbench.data.templates.template import Template
from workbench.export.work import Job, make_gguf

MODEL = "model.gguf"
_SYSTEM, _USER, _REPLY = "sYsTeMtExT", "uSeRtExT", "rEpLyTeXt"


@dataclass(frozen=True)
class Pattern:
    """What a template writes around each role's text.

    ``opening``: before the first turn where no system is given. ``before_reply``: what the model itself begins with,
    such as the space after a colon.
    """

    before_system: str
    after_system: str
    opening: str
    before_user: str
    after_user: str
    before_reply: str
    after_reply: str

    def render(self, messages: list[dict[str, str]]) -> str:
        """A conversation that ends with the user's turn, as the Go template writes it."""
        system = next((m["content"] for m in messages if m["role"] == "system"), None)
        text = self.opening if system is None else self.before_system + system + self.after_system
        for message in messages:
            if message["role"] == "user":
                text += self.before_user + message["content"] + self.after_user
            elif message["role"] == "assistant":
                text += self.before_reply + message["content"] + self.after_reply
        return text

    def as_go(self) -> str:
        """The same as a Go template, in the words of Ollama."""
        start = f"{{{{ if .System }}}}{_go(self.before_system)}{{{{ .System }}}}{_go(self.after_system)}"
        start += f"{{{{ else }}}}{_go(self.opening)}{{{{ end }}}}"
        user = f'{{{{ if eq .Role "user" }}}}{_go(self.before_user)}{{{{ .Content }}}}{_go(self.after_user)}'
        reply = (
            f'{{{{ else if eq .Role "assistant" }}}}{_go(self.before_reply)}{{{{ .Content }}}}{_go(self.after_reply)}'
        )
        return f"{start}{{{{ range .Messages }}}}{user}{reply}{{{{ end }}}}{{{{ end }}}}"


def make(job: Job) -> None:
    """``model.gguf`` and ``Modelfile``."""
    merged = make_gguf(job, MODEL)
    pattern = pattern_of(merged.template)
    if pattern is None or '"""' in pattern.as_go():
        pattern = None
        job.notices.append(
            "The template cannot be converted for Ollama, which then guesses it from the GGUF file. "
            "Compare its prompts with the run's before relying on it."
        )
    job.write("Modelfile", modelfile(merged.template, pattern, merged.tokenizer, merged.context))
    job.command = f"ollama create {job.run.id.lower()} -f Modelfile"


def modelfile(template: Template, pattern: Pattern | None, tokenizer: Any, context: int) -> str:
    """The Modelfile's text."""
    lines = [f"FROM ./{MODEL}"]
    if pattern is not None:
        lines.append(f'TEMPLATE """{pattern.as_go()}"""')
    if template.system and '"""' not in template.system:
        lines.append(f'SYSTEM """{template.system}"""')
    for stop in dict.fromkeys(tokenizer.convert_ids_to_tokens(list(template.end_token_ids))):
        lines.append(f"PARAMETER stop {_quoted(stop)}")
    lines.append(f"PARAMETER num_ctx {context}")
    return "\n".join(lines) + "\n"


def pattern_of(template: Template) -> Pattern | None:
    """What the template writes around each role, or None where it writes more than that."""
    bos = _added_begin(template)
    try:
        pattern = _read_off(template, bos)
        for messages in _probes():
            wanted = template.render(messages, add_generation_prompt=True).removeprefix(bos)
            if pattern.render(messages) != wanted:
                return None
    except (BadRecord, ValueError):
        return None
    return pattern


def _read_off(template: Template, bos: str) -> Pattern:
    """Raises ValueError where the template leaves a role's text out."""
    bare = _plain(template)
    one = bare.render([_turn("user", _USER)], add_generation_prompt=True).removeprefix(bos)
    two = bare.render(
        [_turn("user", _USER), _turn("assistant", _REPLY), _turn("user", _USER)], add_generation_prompt=True
    ).removeprefix(bos)
    opening_and_user, after_user = _cut(one, _USER)
    before_reply, after_first = _cut(two.removeprefix(one), _REPLY)
    if not two.startswith(one) or not after_first.endswith(_USER + after_user):
        raise ValueError
    between = after_first.removesuffix(_USER + after_user)
    # What is before a second user's turn and ends what is before the first belongs to the turn; the rest ends a reply.
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
    return Pattern(before_system, after_system, opening, before_user, after_user, before_reply, after_reply)


def _plain(template: Template) -> Template:
    """The template without its default system prompt, which the Modelfile names by itself."""
    from dataclasses import replace

    return replace(template, system=None)


def _added_begin(template: Template) -> str:
    """The begin of sequence that llama.cpp puts before a prompt by itself, as this tokenizer does."""
    tokenizer = template.tokenizer
    ids = tokenizer("a")["input_ids"]
    is_added = tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
    return str(tokenizer.bos_token) if is_added else ""


def _probes() -> list[list[dict[str, str]]]:
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
    before, found, after = text.partition(probe)
    if not found:
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
