"""Finds out whether a model computes a load-balancing loss for its routers."""

import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.loss_check.check import undisturbed
from workbench.engine.model.loss_check.records import check_records
from workbench.models.tokenizers import pad_token_id

if TYPE_CHECKING:
    from datasets import Dataset

    from workbench.engine.model.loss_check.records import Record


def why_no_router_loss(base: LoadedBase, path: LossPath, records: "Dataset | Sequence[Record]") -> str:
    """Why a model's own forward returns no balancing loss, as part of a sentence; empty if it returns one.

    Configurations do not tell: some name a weight for it, and the code computes none; dense members of a family of
    mixtures have no routers.
    """
    import torch

    none = f"{type(base.model).__name__} computes no load-balancing loss"
    sample = check_records(base.model, records)[:1]
    if not sample:
        return none
    inputs = {
        name: value if isinstance(value, int) else value.to(base.device)
        for name, value in path.collator(pad_token_id(base.tokenizer))(sample).items()
    }
    try:
        with undisturbed(base), base.loss_path(path), torch.no_grad():
            outputs = base.active(**inputs, output_router_logits=True, use_cache=False, fused_lm_head=True)
    except Exception:
        traceback.print_exc()
        return (
            f"{type(base.model).__name__} fails when it is asked for its load-balancing loss (see the log of the run)"
        )
    return "" if isinstance(outputs.aux_loss, torch.Tensor) else none
