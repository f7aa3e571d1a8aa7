"""The output layer's loss: what a model does to its logits is measured, and what cannot be is left to the model."""

import pytest
import torch
from transformers.trainer_pt_utils import LabelSmoother

from workbench.engine.kernels.loss_head import _PROBES, LogitMap, lead_of_targets

VALUES = torch.tensor(_PROBES)[None, :, None].expand(1, -1, 7)


def test_factor_cap_and_vocabulary_are_measured_from_what_a_model_returns():
    assert LogitMap.measured(VALUES) == LogitMap(1.0, None, 7)
    assert LogitMap.measured(VALUES / 16) == LogitMap(1 / 16, None, 7)
    assert LogitMap.measured(VALUES[..., :5]) == LogitMap(1.0, None, 5)
    capped = LogitMap.measured(30 * torch.tanh(VALUES / 30))
    assert (capped.factor, capped.cap, capped.vocabulary) == (1.0, 30.0, 7)
    both = LogitMap.measured(20 * torch.tanh(0.25 * VALUES / 20))
    assert both.factor == pytest.approx(0.25, rel=1e-6)
    assert both.cap == 20


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        (VALUES.clamp(-40, 40), "in a way of its own"),
        (VALUES + 1, "in a way of its own"),
        (torch.cat([VALUES[..., :6], VALUES[..., 6:] - 1], dim=-1), "single tokens"),
        (VALUES[:, :3], "rearranges"),
    ],
)
def test_any_other_function_is_refused(results, reason):
    with pytest.raises(NotImplementedError, match=reason):
        LogitMap.measured(results)


@pytest.mark.parametrize("biased", [False, True], ids=["without bias", "with bias"])
@pytest.mark.parametrize("logit_map", [LogitMap(1.0, None, 11), LogitMap(0.5, None, 9), LogitMap(2.0, 3.0, 9)], ids=str)
def test_smoothed_targets_have_the_loss_and_gradient_of_transformers(logit_map, biased):
    """Whatever a model does to its logits, and although none are held."""
    draw = torch.Generator().manual_seed(3)
    states, weight = (torch.randn(shape, generator=draw, requires_grad=True) for shape in ((5, 6), (11, 6)))
    bias = torch.randn(11, generator=draw, requires_grad=True) if biased else None
    targets = torch.tensor([0, 3, 3, 8, 5])
    logits = logit_map.factor * torch.nn.functional.linear(states, weight, bias)[:, : logit_map.vocabulary]
    if logit_map.cap is not None:
        logits = logit_map.cap * torch.tanh(logits / logit_map.cap)
    wanted = LabelSmoother(epsilon=0.2)({"logits": logits[None]}, targets[None], num_items_in_batch=3)
    log_probs = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
    kept = weight[: logit_map.vocabulary]
    smoothed = log_probs - 0.2 * lead_of_targets(states, kept, bias, targets, logit_map)
    loss = -smoothed.sum() / 3
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-6)
    trained = [one for one in (states, weight, bias) if one is not None]
    gradients = (torch.autograd.grad(one, trained, retain_graph=True) for one in (loss, wanted))
    for found, expected in zip(*gradients, strict=True):
        assert torch.allclose(found, expected, atol=1e-6)
