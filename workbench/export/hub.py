"""Uploads the adapter or the merged weights to a repository on the Hugging Face hub, private by default.

The token is the one that huggingface_hub finds (``HF_TOKEN``, ``hf auth login``). It is never an argument, never
written, and removed from error messages.
"""

import json

from workbench.errors import WorkbenchError
from workbench.export.work import Job, make_adapter, make_merged
from workbench.machine.hub import endpoint, is_hub_id
from workbench.models.child import bars_as_progress, report


def make(job: Job) -> None:
    """Make the export folder as for ``adapter`` or ``merged``, then upload it."""
    repo = str(job.request.repo)
    if not is_hub_id(repo) or "/" not in repo:
        raise WorkbenchError(f"{repo!r} is not a repository name.", "Write it as owner/name.", kind="no_repo")
    if job.request.weights == "adapter":
        make_adapter(job)
        _set_base_name(job)
    else:
        make_merged(job)
    report("uploading", None, repo)
    try:
        url = _upload(job, repo)
    except WorkbenchError:
        raise
    except Exception as error:
        raise _explained(error, repo) from None
    job.url = url
    job.notices.append(f"{repo} is {'public' if job.request.public else 'private'}: {url}")


def _upload(job: Job, repo: str) -> str:
    """Create the repository if necessary and commit the folder to it; returns its URL."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint())
    private = not job.request.public
    url = str(api.create_repo(repo, private=private, exist_ok=job.request.force))
    if private and not api.model_info(repo).private:
        raise WorkbenchError(
            f"{repo} already exists and is public.",
            "Choose another repository, or add --public to publish there.",
            kind="repo_public",
        )
    with bars_as_progress("uploading"):
        api.upload_folder(
            repo_id=repo, folder_path=job.folder, commit_message=f"Adapter of {job.run.id}, by loraworkbench"
        )
    return url


def _set_base_name(job: Job) -> None:
    """Replace a local path in ``adapter_config.json`` by the public name of the base."""
    file = job.folder / "adapter_config.json"
    config: dict[str, object] = json.loads(file.read_text(encoding="utf-8"))
    if config.get("base_model_name_or_path") != job.facts.base.source:
        config["base_model_name_or_path"] = job.facts.base.source
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if job.facts.base.origin in ("local", "gguf", "missing"):
        job.notices.append(f"The base {job.facts.base.source} is a local file: others need it to use the adapter.")


def _explained(error: Exception, repo: str) -> WorkbenchError:
    """Translate an error of the upload, without the token."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    from workbench.failures.diagnose import diagnose

    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    if status in (401, 403):
        return WorkbenchError(
            f"The hub token has no write access to {repo}.",
            "Log in with a write token: `hf auth login`, or set HF_TOKEN.",
            kind="hub_refused",
        )
    if status == 409:
        return WorkbenchError(
            f"{repo} already exists.", "Choose another repository, or add --force to commit to it.", kind="exists"
        )
    diagnosis = diagnose(error, f"uploading to {repo}")
    token = get_token() or "\0"
    message, cure = diagnosis.message.replace(token, "…"), diagnosis.cure.replace(token, "…")
    return WorkbenchError(message, cure, kind=diagnosis.kind)
