"""Intervals against what can be worked out by hand."""

import math

import pytest

from workbench.evaluation import bootstrap
from workbench.evaluation.bootstrap import interval, resampled_sums
from workbench.evaluation.metrics import Rejected, Tally, compute_metrics
from workbench.evaluation.result import AnsweredPrompt


def test_two_records_can_be_drawn_in_three_ways():
    # Both the first: 1/4; one of each: 1/2; both the second: 1/4. The middle 95 % reach from end to end.
    sums = resampled_sums([[1.0], [5.0]], draws=4000)[:, 0]
    assert set(sums) == {2.0, 6.0, 10.0}
    share = {value: (sums == value).mean() for value in (2.0, 6.0, 10.0)}
    # Four standard errors of a share of 4,000 draws.
    assert share[2.0] == pytest.approx(1 / 4, abs=4 * math.sqrt(1 / 4 * 3 / 4 / 4000))
    assert share[6.0] == pytest.approx(1 / 2, abs=4 * math.sqrt(1 / 4 / 4000))
    found = interval(3.0, sums / 2)
    assert (found.value, found.low, found.high) == (3.0, 1.0, 5.0)


def test_ten_records_of_which_half_are_right():
    # The number of right ones is binomial (10, 1/2): P(≤ 1) = 11/1024 < 2.5 % < 56/1024 = P(≤ 2), and so from above.
    sums = resampled_sums([[1.0]] * 5 + [[0.0]] * 5, draws=20_000)[:, 0]
    found = interval(0.5, sums / 10)
    assert (found.low, found.high) == (0.2, 0.8)


def test_the_seed_decides_what_is_drawn_and_columns_are_drawn_together():
    columns = [[n, 2 * n + 1] for n in range(7)]
    first, again, other = (resampled_sums(columns, draws=50, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    # 2·Σn + 7 only where both columns are of the same records.
    assert (first[:, 1] == 2 * first[:, 0] + 7).all()


def test_many_records_are_drawn_in_parts(monkeypatch):
    whole = resampled_sums([[n] for n in range(9)], draws=64, seed=3)
    monkeypatch.setattr(bootstrap, "_CHUNK_ELEMENTS", 20)
    parts = resampled_sums([[n] for n in range(9)], draws=64, seed=3)
    assert (whole == parts).all()


def test_a_figure_without_a_number_has_no_bounds():
    found = interval(math.inf, [1.0, math.inf])
    assert (found.value, found.low, found.high) == (math.inf, None, None)


def test_figures_of_two_records_by_hand():
    # 2 tokens and 4; base 2.0 nats and 1.0 a token, tuned 1.0 and 0.5.
    tallies = {"base": Tally([4.0, 4.0], [0, 2]), "run": Tally([2.0, 2.0], [2, 3])}
    answered = [
        AnsweredPrompt(prompt="a", reference="one two", replies={"base": "one", "run": "one two"}),
        AnsweredPrompt(prompt="b", reference="three", replies={"base": "four", "run": "it is three"}),
        AnsweredPrompt(prompt="c", replies={"base": "x", "run": "y"}, fixed=True),
    ]
    figures, minus = compute_metrics([2, 4], tallies, answered, draws=2000, seed=0)
    base, run = figures["base"], figures["run"]
    assert base.loss.value == pytest.approx(8 / 6)
    assert base.perplexity.value == pytest.approx(math.exp(8 / 6))
    assert base.token_accuracy.value == pytest.approx(2 / 6)
    assert (run.exact.value, run.contains.value) == (0.5, 1.0)
    # One of 1 and 2 words, F = 2·1/(1+2); none; then 1, and one of 3 and 1, F = 2·1/(3+1).
    assert base.rouge_l.value == pytest.approx((2 / 3 + 0) / 2)
    assert run.rouge_l.value == pytest.approx((1 + 1 / 2) / 2)
    # Drawn twice the first record 2 and 1 nats a token, twice the second 1 and 0.5.
    assert (base.loss.low, base.loss.high) == (1.0, 2.0)
    assert (run.perplexity.low, run.perplexity.high) == pytest.approx((math.exp(0.5), math.exp(1.0)))
    assert list(minus) == ["run"]
    difference = minus["run"]
    assert difference.perplexity.value == pytest.approx(math.exp(8 / 6) - math.exp(4 / 6))
    # Paired: the ends are those of the same draw, not of the base's worst and the run's best.
    assert (difference.loss.low, difference.loss.high) == (0.5, 1.0)
    assert (difference.token_accuracy.low, difference.token_accuracy.high) == pytest.approx((-1.0, -0.25))
    assert (difference.exact.low, difference.exact.high) == (-1.0, 0.0)


def test_without_references_replies_are_not_scored():
    answered = [AnsweredPrompt(prompt="c", replies={"base": "x"}, fixed=True)]
    figures, minus = compute_metrics([3], {"base": Tally([900.0 * 3], [0])}, answered, draws=10, seed=0)
    assert figures["base"].exact is None
    assert math.isinf(figures["base"].perplexity.value)
    assert figures["base"].perplexity.low is None
    assert minus == {}


def test_preferences_of_two_pairs_by_hand():
    # Per token: base 2.0 chosen and 1.0 rejected, then 1.0 and 0.5; the run 1.0 and 1.5, then 0.5 and 0.25.
    tallies = {"base": Tally([4.0, 4.0], [0, 2]), "run": Tally([2.0, 2.0], [2, 3])}
    rejected = Rejected([1, 4], {"base": [1.0, 2.0], "run": [1.5, 1.0]})
    figures, minus = compute_metrics([2, 4], tallies, [], draws=2000, seed=0, rejected=rejected)
    base, run = figures["base"], figures["run"]
    assert (base.preference_accuracy.value, run.preference_accuracy.value) == (0.0, 0.5)
    assert (run.preference_accuracy.low, run.preference_accuracy.high) == (0.0, 1.0)
    assert base.preference_margin.value == pytest.approx((-1.0 - 0.5) / 2)
    assert run.preference_margin.value == pytest.approx((0.5 - 0.25) / 2)
    assert minus["run"].preference_accuracy.value == -0.5
    assert compute_metrics([2, 4], tallies, [], draws=10, seed=0)[0]["run"].preference_accuracy is None
