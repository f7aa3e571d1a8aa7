"""The helper process's side of an export: fills the folder that will become the export."""

import importlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.evaluation.provenance import Provenance, provenance_of
from workbench.export.card import model_card
from workbench.export.plan import base_here
from workbench.export.request import Request, Target
from workbench.export.staging import MARK
from workbench.models.child import report
from workbench.models.sources import LocalModel, find_local
from workbench.recipe.resolved import ResolvedRecipe
from workbench.runs.folder import RunFolder
from workbench.storage.folders import entries
from workbench.storage.paths import Home

# Imported when they are called: some bring torch with them.
_MAKERS: dict[Target, str] = {
    "adapter": "work:make_adapter",
    "merged": "work:make_merged",
    "gguf": "work:make_gguf",
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
    """One export in the making. ``check``, ``command``, ``notices`` and ``figures`` are what will be told of it."""

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
    figures: dict[str, Any] = field(default_factory=dict)

    def write(self, name: str, content: str) -> None:
        (self.folder / name).write_text(content, encoding="utf-8")

    def tell(self, words: str, figures: dict[str, Any]) -> None:
        self.check = f"{self.check} {words}".strip()
        self.figures |= figures


def work(home: str, run: str, request: dict[str, Any], aside: str, precise: bool = False) -> dict[str, Any]:
    """Make one export in the folder ``aside``; returns what is told of it."""
    where, folder = Home(Path(home)), RunFolder(Path(run))
    recipe = folder.recipe_as_run()
    local = find_local(where, recipe.model)
    facts = provenance_of(folder, recipe, local, lambda name, fraction: report("reading the records", fraction, name))
    job = Job(where, folder, recipe, Request.from_json(request), Path(aside), local, facts, precise)
    module, _, function = _MAKERS[job.request.target].partition(":")
    getattr(importlib.import_module(f"workbench.export.{module}"), function)(job)
    mark = {"target": job.request.target, **facts.as_json(), "check": job.figures}
    job.write(MARK, json.dumps(mark, ensure_ascii=False, indent=1) + "\n")
    return {"check": job.check, "command": job.command, "notices": job.notices, "figures": job.figures}


def make_adapter(job: Job, place: str = "") -> None:
    """The run's PEFT folder with its template and a model card."""
    target = job.folder / place
    target.mkdir(exist_ok=True)
    for file in entries(job.run.adapter):
        # PEFT's own card says next to nothing, and what is no file is none of its.
        if file.is_file() and not file.is_symlink() and file.name != "README.md":
            report("copying", None, file.name)
            shutil.copyfile(file, target / file.name)
    (target / "README.md").write_text(model_card(job.facts, "adapter"), encoding="utf-8")


def make_merged(job: Job, place: str = "") -> None:
    """Base and adapter as one model in safetensors, read back and compared."""
    from workbench.export.merged import check_read_back, write_merged
    from workbench.export.weights import check_merge, merge

    target = job.folder / place
    target.mkdir(exist_ok=True)
    merged = merge(job.recipe, base_here(job.home, job.recipe), job.run.adapter)
    words, figures, notices = check_merge(merged)
    job.tell(words, figures)
    job.notices += notices
    write_merged(merged, target)
    job.tell(*check_read_back(merged, target, job.recipe.model.trust_remote_code))
    (target / "README.md").write_text(model_card(job.facts, "merged", job.check), encoding="utf-8")


def make_gguf(job: Job, name: str | None = None) -> Any:
    """Base and adapter as one GGUF file, read back and compared; returns the merged model without its weights."""
    from workbench.export.gguf.file import check_gguf, write_gguf
    from workbench.export.weights import check_merge, merge

    merged = merge(job.recipe, base_here(job.home, job.recipe), job.run.adapter, precise=job.precise)
    words, figures, notices = check_merge(merged)
    job.tell(words, figures)
    job.notices += notices
    file = job.folder / (name or f"{job.run.id}-{job.request.type}.gguf")
    write_gguf(merged, chat_template(job), file, job.run.id, job.request.type, job.facts.base.licence)
    job.tell(*check_gguf(merged, file, job.request.type))
    job.command = f"llama-cli -m {file.name} -cnv"
    job.write("README.md", model_card(job.facts, "gguf", job.check))
    return merged


def chat_template(job: Job) -> str:
    """The template of training as other programs are to use it, with its default system prompt in it."""
    file = job.run.adapter / "chat_template.jinja"
    return file.read_text(encoding="utf-8") if file.is_file() else ""
