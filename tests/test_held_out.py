"""The best of several arms, chosen on other seeds than those it is compared on."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from spaced_kd import held_out

SCORES = {
    "a": (10.0, 4.0, 4.0),
    "b": (6.0, 6.0, 5.0),
    "c": (7.0, 7.0, 7.0),
}


def test_each_seed_is_compared_with_what_is_best_on_the_others():
    """By hand: without seed 0 a has 4, b 5.5; without 1 a 7, b 5.5; without 2 a 7, b 6.

    A choice that saw its own seed would take a on seed 0, where it is lucky.
    """
    assert held_out.chosen(SCORES, ["a", "b"]) == ("b", "a", "a")
    found = held_out.minus_best(SCORES, "c", ["a", "b"])
    assert found.per_seed == (1.0, 3.0, 3.0)
    # On all seeds a is better: 6 against 5.67.
    assert held_out.minus_luckiest(SCORES, "c", ["a", "b"]).per_seed == (-3.0, 3.0, 3.0)


def test_an_arm_is_not_its_own_rival():
    assert held_out.minus_best(SCORES, "a", ["a", "b"]).per_seed == (4.0, -2.0, -1.0)


@hypothesis.settings(deadline=None)
@hypothesis.given(
    st.lists(
        st.lists(st.integers(0, 50), min_size=5, max_size=5), min_size=2, max_size=5
    )
)
def test_choices_against_numpy(values):
    scores = {f"s{i}": [float(v) for v in row] for i, row in enumerate(values)}
    table = np.array(values, np.float64)
    expected = [
        f"s{int(np.argmax(np.delete(table, k, axis=1).sum(1)))}" for k in range(5)
    ]
    assert list(held_out.chosen(scores, list(scores))) == expected


def test_one_seed_leaves_none_to_choose_on():
    with pytest.raises(ValueError, match="1 seed leaves none"):
        held_out.chosen({"a": [1.0], "b": [2.0]}, ["a", "b"])
