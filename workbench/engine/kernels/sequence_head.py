"""A linear layer that reads a text from the state of its last token: labels for classification, a score for rewards.

It has the name and the place that transformers' models for sequence classification give it, so that an adapter that was
trained with it loads there. The layer is added to the causal model in memory, whose output layer then is not called.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

import torch
from transformers.modeling_outputs import SequenceClassifierOutput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEAD = "score"
"""The layer's name in the model."""

# What the causal model's forward takes and its decoder does not.
_OF_TOKENS = ("labels", "trained_positions", "shift_labels", "logits_to_keep", "return_dict", "num_items_in_batch")


def add_head(model: "PreTrainedModel", outputs: int, seed: int) -> None:
    """Add a new head: its weights are drawn as transformers draws those of a new layer.

    Args:
        outputs: rows, one per label.
        seed: of the draw, which is the same on every device and takes no random number from others.
    """
    config = model.config.get_text_config()
    embedding = model.get_input_embeddings().weight
    layer = torch.nn.utils.skip_init(torch.nn.Linear, head_width(model), outputs, bias=False)
    with torch.no_grad():
        spread = float(getattr(config, "initializer_range", 0.02))
        layer.weight.normal_(0.0, spread, generator=torch.Generator().manual_seed(seed))
    layer.to(device=embedding.device, dtype=model.dtype)
    layer.requires_grad_(False)
    setattr(model, HEAD, layer)


def remove_head(model: "PreTrainedModel") -> None:
    """Remove the head, if there is one."""
    if has_head(model):
        delattr(model, HEAD)


def has_head(model: "PreTrainedModel") -> bool:
    """Whether a model has a head."""
    return HEAD in dict(model.named_children())


def head_width(model: "PreTrainedModel") -> int:
    """The width of the states that the head reads."""
    output = model.get_output_embeddings()
    width = getattr(output, "in_features", None) or model.config.get_text_config().hidden_size
    return int(width)


class SequenceScores:
    """Makes a causal model accept ``sequence_ends=…``, and then return the head's outputs as ``logits``.

    Every other call is unchanged. ``sequence_ends``: indices of each text's last token into the batch's states with its
    rows concatenated; (texts,).

    Args:
        model: has a head (:func:`add_head`).
    """

    def __init__(self, model: "PreTrainedModel") -> None:
        self._model = model
        self._had_forward = "forward" in model.__dict__
        self._own_forward: Callable[..., object] = model.forward
        decoder = getattr(model, model.base_model_prefix)
        parameters = inspect.signature(type(decoder).forward).parameters
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        self._accepted = None if takes_all else parameters.keys()

        @wraps(type(model).forward)
        def forward(*args: torch.Tensor, sequence_ends: torch.Tensor | None = None, **kwargs: object) -> object:
            return self._own_forward(*args, **kwargs) if sequence_ends is None else self._scores(sequence_ends, kwargs)

        model.forward = forward

    def remove(self) -> None:
        """Restore the model's ``forward``."""
        del self._model.forward
        if self._had_forward:
            self._model.forward = self._own_forward

    def _scores(self, ends: torch.Tensor, kwargs: dict[str, object]) -> SequenceClassifierOutput:
        decoder = getattr(self._model, self._model.base_model_prefix)
        taken = {
            name: value
            for name, value in kwargs.items()
            if name not in _OF_TOKENS and value is not None and (self._accepted is None or name in self._accepted)
        }
        states = decoder(**taken).last_hidden_state
        last = states.reshape(-1, states.shape[-1]).index_select(0, ends.to(states.device))
        # The head's weights may be wider than the states.
        head = getattr(self._model, HEAD)
        return SequenceClassifierOutput(logits=head(last.to(head.weight.dtype)).float())
