"""The rows of embeddings that are trained because they were added for new tokens (``model.resize_embeddings``)."""

from collections.abc import Iterator

from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError
from workbench.estimate.adapter.safetensors_size import SavedTensors
from workbench.estimate.adapter.sites import Site, sites
from workbench.estimate.adapter.targets import Targets
from workbench.models.skeleton import Skeleton


def trained_embeddings(skeleton: Skeleton, settings: AdapterSettings) -> tuple[Site, ...]:
    """The embeddings whose new rows are trained by themselves: the input's, and the output's unless it is tied to it.

    None of a layer that ``modules_to_save`` trains whole.
    """
    facts = skeleton.root.facts
    if not facts.get("new_tokens"):
        return ()
    names = {facts.get("input_embedding")} | ({skeleton.output} if not facts.get("tied_embeddings") else set())
    whole = settings.modules_to_save
    return tuple(site for site in sites(skeleton) if site.name in names and not (whole and site.name.endswith(whole)))


def token_rows(skeleton: Skeleton, settings: AdapterSettings) -> dict[str, list[int]]:
    """The rows that are trained, by name of the embedding: ``trainable_token_indices`` of PEFT's ``LoraConfig``."""
    new, rows = skeleton.root.facts.get("new_tokens", 0), skeleton.root.facts.get("vocab_size", 0)
    return {site.name: list(range(rows - new, rows)) for site in trained_embeddings(skeleton, settings)}


def new_row_parameters(skeleton: Skeleton, settings: AdapterSettings) -> int:
    """The parameters of the trained rows, in all embeddings that have them."""
    new = skeleton.root.facts.get("new_tokens", 0)
    weights = (site.parameter("weight") for site in trained_embeddings(skeleton, settings))
    return sum(new * weight.shape[1] for weight in weights if weight is not None)


def new_row_tensors(
    skeleton: Skeleton, settings: AdapterSettings, targets: Targets, dtype: str
) -> Iterator[SavedTensors]:
    """The trained rows as PEFT saves them, of shape (new tokens, hidden size).

    Raises:
        WorkbenchError: the adapter targets one of the layers with LoRA.
    """
    facts, whole = skeleton.root.facts, settings.modules_to_save
    embedding, output = str(facts.get("input_embedding")), skeleton.output or ""
    is_tied = bool(facts.get("new_tokens") and facts.get("tied_embeddings"))
    if is_tied and whole and output.endswith(whole) and not embedding.endswith(whole):
        raise WorkbenchError(
            f"{output} is tied to {embedding}, whose new rows (model.resize_embeddings) are trained.",
            f"List {embedding.rpartition('.')[2]} in adapter.modules_to_save in its place.",
            kind="adapter_settings",
        )
    for site in trained_embeddings(skeleton, settings):
        if any(site in target.sites for target in targets.modules):
            raise WorkbenchError(
                f"The new rows of {site.name} (model.resize_embeddings) cannot be trained beside LoRA on that layer.",
                "Remove it from adapter.target_modules, or train it whole with adapter.modules_to_save.",
                kind="adapter_settings",
            )
        weight = site.parameter("weight")
        assert weight is not None, site.name
        name = f"base_model.model.{site.name}.token_adapter.trainable_tokens_delta"
        yield SavedTensors((name,), (skeleton.root.facts["new_tokens"], weight.shape[1]), dtype)
