"""How values over seeds are written."""

from spaced_kd.spread import Spread


def test_a_spread_is_written_with_the_digits_asked_for():
    spread = Spread.of([0.0101, 0.0103, 0.0105])
    assert f"{spread:.4f}" == "0.0103 ± 0.0002"
    assert f"{spread}" == str(spread) == "0.01 ± 0.00"
    assert f"{Spread.of([0.25]):.3f}" == "0.250"
    assert f"{Spread.of([0.25, None]):.3f}" == "-"
