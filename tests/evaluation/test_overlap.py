"""Exact match, contains and ROUGE-L, on cases worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.evaluation.overlap import contains, is_exact, rouge_l, words


@pytest.mark.parametrize(
    ("reply", "reference", "exact", "holds"),
    [
        ("Aye, answer 3.", "Aye, answer 3.", True, True),
        ("  Aye,\n answer 3. ", "Aye, answer 3.", True, True),
        ("aye, answer 3.", "Aye, answer 3.", False, True),
        ("It is Paris, of course.", "paris", False, True),
        ("It is Rome.", "Paris", False, False),
        ("", "Paris", False, False),
        ("anything", "", False, False),
    ],
)
def test_exact_and_contains(reply, reference, exact, holds):
    assert is_exact(reply, reference) is exact
    assert contains(reply, reference) is holds


@pytest.mark.parametrize(
    ("reply", "reference", "score"),
    [
        # Lin 2004, §3.1: "police killed the gunman" against its two variants; LCS 3 and 2 of 4 words.
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        # LCS "the cat sat" = 3; precision 3/3, recall 3/6.
        ("The cat sat", "the cat sat on the mat.", 2 * (3 / 3) * (3 / 6) / (3 / 3 + 3 / 6)),
        # LCS "a b d" = 3 of 5 and of 4.
        ("a x b y d", "a b c d", 2 * 3 / (5 + 4)),
        ("nothing alike", "other words", 0.0),
        ("", "words", 0.0),
        ("words", "", 0.0),
        ("... !", "?", 0.0),
        ("Größe über alles", "GRÖSSE ÜBER ALLES", 1.0),
        # Of four characters three are there in order.
        ("我喜茶", "我喜歡茶", 2 * 3 / (3 + 4)),
    ],
)
def test_rouge_l(reply, reference, score):
    assert rouge_l(reply, reference) == pytest.approx(score)


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_rouge_l_counts_the_longest_common_subsequence(first, second):
    # The table as it is defined, cell by cell.
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, left in enumerate(first):
        for j, right in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    wanted = 2 * table[-1][-1] / (len(first) + len(second)) if table[-1][-1] else 0.0
    assert rouge_l(" ".join(first), " ".join(second)) == pytest.approx(wanted)


def test_words_are_letters_and_digits_of_any_script():
    assert words("Don't stop_now: 3 ﬁsh, Привет!") == ["don", "t", "stop", "now", "3", "fish", "привет"]
