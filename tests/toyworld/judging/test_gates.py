import pytest

from csd_nerf.toyworld.judging.gates import Gate, all_passed


@pytest.mark.parametrize(
    ("value", "at_least", "verdict"),
    [
        (0.4, False, "pass"),
        (0.41, False, "FAIL"),
        (0.4, True, "pass"),
        (0.39, True, "FAIL"),
        (float("nan"), False, "FAIL"),
        (float("nan"), True, "FAIL"),
        (None, True, "not measured"),
    ],
)
def test_verdicts(value: float | None, at_least: bool, verdict: str):
    assert Gate("g", value, 0.4, at_least).verdict == verdict


def test_what_was_not_measured_neither_fails_nor_passes():
    good, bad, unknown = (Gate("g", value, 0.5, True) for value in (1.0, 0.0, None))
    assert all_passed([good, unknown]) and not all_passed([good, bad, unknown])
    assert not all_passed([unknown])
