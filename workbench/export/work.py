"""Makes an export, in the helper process: fills the staging folder that becomes the export."""

import importlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.data.templates.template import Template
from workbench.engine.model.adapter_folder import check_adapter
from workbench.evaluation.provenance import Provenance, provenance_of
from workbench.export.card import model_card
from workbench.export.gguf.support import choose_writer
from workbench.export.gguf.tools import find_tools
from workbench.export.plan import local_base
from workbench.export.request import Figures, HelperResult, Request, Target
from workbench.export.staging import MARK
from workbench.models.child import report
from workbench.models.local import read_config
from workbench.models.model_class import auto_class_name
from workbench.models.older_transformers import add_older_keys
from workbench.models.sources import LocalModel, find_local
from workbench.models.tokenizers import load_tokenizer
from workbench.recipe.resolved import ResolvedRecipe, auto_keys
from workbench.recipe.text import on_base
from workbench.runs.folder import RunFolder
from workbench.storage.folders import entries
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from workbench.export.weights import Merged

# The function that makes each target; imported when called, as some of them import torch.
_MAKERS: dict[Target, str] = {
    "adapter": "work:make_adapter",
    "merged": "work:make_merged",
    "gguf": "work:make_gguf",
    "gguf-lora": "gguf.adapter:make",
    "ollama": "ollama:make",
    "vllm": "serve:make",
    "tgi": "serve:make",
    "hub": "hub:make",
    "script": "script:make",
    "notebook": "script:make",
    "axolotl": "other_tools.axolotl:make",
    "llamafactory": "other_tools.llamafactory:make",
}


@dataclass
class Job:
    """An export in progress.

    The fields from ``check`` on become the result, see :class:`~workbench.export.request.Exported`.

    Attributes:
        folder: the staging folder to fill.
        local: the base on this machine, if it is here.
        facts: what is known about the run.
        precise: merge in 32 bits before writing GGUF.
    """

    home: Home
    run: RunFolder
    recipe: ResolvedRecipe
    request: Request
    folder: Path
    local: LocalModel | None
    facts: Provenance
    precise: bool = False
    check: str = ""
    command: str = ""
    notices: list[str] = field(default_factory=list)
    figures: Figures = field(default_factory=dict)
    url: str = ""

    @property
    def loader(self) -> str:
        """The name of transformers' class that loads the base. Imports transformers."""
        if self.recipe.objective.spec.has_head:
            return "AutoModelForSequenceClassification"
        return auto_class_name(read_config(self.local.folder) if self.local is not None else {})

    @property
    def is_trained(self) -> bool:
        """Whether there is a run, and not only a recipe."""
        return self.run.journal.is_file()

    @property
    def subject(self) -> str:
        """What is exported, as the start of a sentence."""
        return f"The {'run' if self.is_trained else 'recipe'} {self.run.id!r}"

    def name_base(self) -> tuple[str, str | None]:
        """The base's hub id and commit; for one that is not from the hub its folder, which a notice names.

        Raises:
            WorkbenchError: it is not on this machine.
        """
        local = local_base(self.home, self.recipe)
        if local.is_hub_id:
            return local.source, local.revision
        self.notices.append(
            f"The base is the local folder {local.folder}: on another machine, put its folder or hub id in its place."
        )
        return str(local.folder), None

    def write(self, name: str, content: str) -> None:
        """Write a text file into the export."""
        (self.folder / name).write_text(content, encoding="utf-8")

    def add_check(self, sentence: str, figures: Figures) -> None:
        """Add the result of a check."""
        self.check = f"{self.check} {sentence}".strip()
        self.figures |= figures


def work(home: str, run: str, request: dict[str, Any], folder: str, precise: bool = False) -> dict[str, object]:
    """Make one export in ``folder``; returns a :class:`~workbench.export.request.HelperResult` as JSON data."""
    run_folder, in_home, asked = RunFolder(Path(run)), Home(Path(home)), Request.from_json(request)
    recipe = on_base(run_folder.recipe_as_run(), asked.base)
    local = find_local(in_home, recipe.model)
    facts = provenance_of(
        run_folder, recipe, local, lambda name, fraction: report("reading the records", fraction, name)
    )
    job = Job(in_home, run_folder, recipe, asked, Path(folder), local, facts, precise)
    if not job.is_trained and (keys := auto_keys(run_folder.recipe().training)):
        job.notices.append(f"Set to what needs the least memory, as no run has chosen it: {', '.join(keys)}.")
    module, _, function = _MAKERS[job.request.target].partition(":")
    getattr(importlib.import_module(f"workbench.export.{module}"), function)(job)
    known = facts.as_json() if facts.has_run else {"adapter": facts.run, "base": facts.base.as_json()}
    mark = {"target": job.request.target, **known, "check": job.figures}
    job.write(MARK, json.dumps(mark, ensure_ascii=False, indent=1) + "\n")
    return asdict(HelperResult(job.check, job.command, job.notices, job.figures, job.url))


def make_adapter(job: Job, subfolder: str = "") -> None:
    """Copy the run's adapter, a PEFT folder with its template, and add a model card."""
    target = job.folder / subfolder
    target.mkdir(exist_ok=True)
    for file in entries(job.run.adapter):
        # PEFT's own card says next to nothing; links and folders do not belong to an adapter.
        if file.is_file() and not file.is_symlink() and file.name != "README.md":
            report("copying", None, file.name)
            shutil.copyfile(file, target / file.name)
    add_older_keys(target)
    (target / "README.md").write_text(model_card(job.facts, "adapter", loader=job.loader), encoding="utf-8")
    if check_adapter(job.run.adapter).get("trainable_token_indices"):
        job.notices.append(
            "The adapter trains new rows of the embeddings: resize the base to the tokenizer (resize_token_embeddings) "
            "before loading it. Tools that cannot do this need the merged weights."
        )


def make_merged(job: Job, subfolder: str = "") -> None:
    """Merge the adapter into the base, write the model as safetensors, and verify the files."""
    from workbench.export.merged import check_read_back, write_merged
    from workbench.export.weights import check_merge, merge

    target = job.folder / subfolder
    target.mkdir(exist_ok=True)
    local = local_base(job.home, job.recipe)
    merged = merge(job.recipe, local, job.run.adapter)
    job.notices += merged.notices
    sentence, figures, notices = check_merge(merged)
    job.add_check(sentence, figures)
    job.notices += notices
    write_merged(merged, target, local.folder)
    job.add_check(*check_read_back(merged, target, job.recipe.model.trust_remote_code))
    (target / "README.md").write_text(model_card(job.facts, "merged", job.check, job.loader), encoding="utf-8")


def make_gguf(job: Job, name: str | None = None) -> "Merged":
    """Merge the adapter into the base, write the model as a GGUF file, and verify the file.

    Returns:
        The merged model, without its weights.
    """
    from workbench.export.weights import check_merge, merge

    local = local_base(job.home, job.recipe)
    merged = merge(job.recipe, local, job.run.adapter, precise=job.precise)
    job.notices += merged.notices
    sentence, figures, notices = check_merge(merged)
    job.add_check(sentence, figures)
    job.notices += notices
    file = job.folder / (name or f"{job.run.id}-{job.request.type}.gguf")
    _write_gguf(job, merged, local, file)
    job.command = f"llama-cli -m {file.name} -cnv"
    job.write("README.md", model_card(job.facts, "gguf", job.check))
    return merged


def _write_gguf(job: Job, merged: "Merged", local: LocalModel, file: Path) -> None:
    """Write and check the file: with llama.cpp's converter where it is, else with our own writer."""
    from workbench.export.gguf.answers import check_answers
    from workbench.export.gguf.converter import convert_merged
    from workbench.export.gguf.file import check_gguf, write_gguf
    from workbench.export.gguf.read_back import check_read_back

    tools, kind, licence = find_tools(job.home), job.request.type, job.facts.base.licence
    if choose_writer(tools, read_config(local.folder), kind).kind == "own":
        template = chat_template(job) or str(merged.tokenizer.chat_template or "")
        write_gguf(merged, template, file, job.run.id, kind, licence)
        job.add_check(*check_gguf(merged, file, kind))
        return
    written_by, notices = convert_merged(tools, merged, local.folder, file, job.run.id, kind, licence)
    job.notices += [f"Written by {written_by}.", *notices]
    if tools.library is not None:
        sentence, figures, notices = check_answers(merged, file, kind, tools.library)
        job.add_check(sentence, figures)
        job.notices += notices
    else:
        job.add_check(*check_read_back(merged, file, kind))


def chat_template(job: Job) -> str:
    """The training template for other programs, as Jinja source that includes the default system prompt."""
    file = job.run.adapter / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    data = job.recipe.data
    if job.is_trained or (data.template == "auto" and data.system is None):
        return ""
    tokenizer = load_tokenizer(local_base(job.home, job.recipe).folder, job.recipe.model.trust_remote_code)
    return Template.for_model(tokenizer, data.template, data.system).source_for_others()
