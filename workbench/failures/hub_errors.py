"""Explains errors of the Hugging Face hub: what they mean and what to do."""

from workbench.errors import WorkbenchError
from workbench.machine.hub import endpoint, is_hub_id, is_offline, token_place

WAYS_OUT = (
    "Connect this machine, or set HF_ENDPOINT to a mirror of the hub, or copy the model's folder here and give its "
    "path."
)


def unreachable(what: str, reason: str) -> WorkbenchError:
    """The error for a hub that does not answer, or is disabled.

    Args:
        what: what is missing, as in ``"the model x/y"``. reason: why the hub cannot be reached.
    """
    if is_offline():
        return WorkbenchError(
            f"{_sentence(what)} is not in the cache, and HF_HUB_OFFLINE prevents downloading it.",
            "Unset HF_HUB_OFFLINE, or give the path of a local folder.",
            kind="unreachable",
        )
    return WorkbenchError(
        f"{_sentence(what)} is not on this machine, and {endpoint()} cannot be reached ({reason}).",
        WAYS_OUT,
        kind="unreachable",
    )


def hub_error(error: BaseException, what: str) -> WorkbenchError | None:
    """Explain an exception of huggingface_hub about ``what`` (``"the model x/y"``); None for any other exception."""
    names = {base.__name__ for base in type(error).__mro__ if base.__module__.startswith("huggingface_hub")}
    status = getattr(getattr(error, "response", None), "status_code", None)
    repo = what.rpartition(" ")[2]
    if "GatedRepoError" in names:
        place = token_place()
        has = f"the token in {place} has no access to it" if place else "no token is set"
        page = f"{endpoint()}/{repo}" if is_hub_id(repo) else "its page on the hub"
        return WorkbenchError(
            f"{_sentence(what)} is gated: you must accept its license, and {has}.",
            f"Accept it at {page}, then run `hf auth login` (or set HF_TOKEN and restart the engine).",
            kind="gated",
        )
    if "RevisionNotFoundError" in names:
        return WorkbenchError(
            f"{_sentence(what)} has no such revision.",
            "Leave model.revision empty for its main branch, or name a branch, tag or commit.",
            kind="revision_not_found",
        )
    if "RepositoryNotFoundError" in names:
        return WorkbenchError(
            f"The hub has no {what.removeprefix('the ')}, or it is private.",
            "Check the spelling (owner/name); for a private one run `hf auth login` or set HF_TOKEN.",
            kind="model_not_found",
        )
    if "DisabledRepoError" in names:
        return WorkbenchError(
            f"{_sentence(what)} is disabled on the hub and cannot be downloaded.",
            "Choose another model, or give the path of a copy on this machine.",
            kind="disabled",
        )
    if "OfflineModeIsEnabled" in names or "LocalEntryNotFoundError" in names or "RevisionResolutionError" in names:
        return unreachable(what, "the hub did not answer")
    if "HFValidationError" in names:
        return WorkbenchError(
            f"{_sentence(what)} is neither a local folder nor a valid hub name.",
            "Give a Hugging Face id (owner/name), a folder, or a .gguf file.",
            kind="model_not_found",
        )
    if status in (401, 403):
        place = token_place()
        return WorkbenchError(
            f"The hub denies access to {what} ({status})" + (f" to the token in {place}." if place else "."),
            "Run `hf auth login` with a valid token, or unset HF_TOKEN for public models.",
            kind="token_refused",
        )
    if "HfHubHTTPError" in names:
        return WorkbenchError(
            f"The hub answered {status or 'with an error'} for {what}.", "Try again in a minute.", kind="hub_error"
        )
    return None


def _sentence(what: str) -> str:
    return what[:1].upper() + what[1:]
