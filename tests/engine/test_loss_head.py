"""The output layer's loss: what a model does to its logits is measured, and what cannot be is left to the model."""

import pytest
import torch

from workbench.engine.kernels.loss_head import _PROBES, LogitMap

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
