import pytest

from csd_nerf.toyworld.training.card_parts import gates_section, markdown_table, replace_gates


def test_table():
    assert markdown_table(["a", "b"], [["1", ""], ["x y", "2"]]) == "| a | b |\n|---|---|\n| 1 | |\n| x y | 2 |"
    assert markdown_table(["", ""], [["a", "1"]]) == "| | |\n|---|---|\n| a | 1 |"


@pytest.mark.parametrize("card", ["", "# Prior\n\nFacts.\n", "# Prior\n\n## Training\n\n![loss](loss.png)\n"])
def test_a_card_without_the_section_gets_one_and_keeps_the_rest(card: str):
    once = replace_gates(card, "first")
    assert once.count("## Gates") == 1 and "first" in once
    assert all(line in once for line in card.splitlines())
    if "## Training" in card:
        assert once.index("## Gates") < once.index("## Training")
    assert replace_gates(once, "first") == once
    again = replace_gates(once, "second")
    assert "first" not in again and again.replace("second", "first") == once


def test_a_trained_card_has_the_place_for_it():
    card = f"# Prior\n\n{gates_section()}\n\n## Training\n"
    assert "csd prior check" in card
    assert replace_gates(card, "measured") == card.replace(gates_section(), gates_section("measured"))


def test_half_a_section_is_refused():
    with pytest.raises(ValueError, match="only one of the markers"):
        replace_gates(gates_section().replace("<!-- gates: end -->", ""), "x")
