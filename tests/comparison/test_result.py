"""What a comparison says, in numbers, in words and as a picture."""

from __future__ import annotations

import math

import pytest

import mclip_helpers as mh
from mclip_helpers.comparison import WAYS, Comparison, Run, advice, recommend


def runs(share: float, kept: float = 0.9, trained: int = 5, pictures: int = 200) -> list[Run]:
    """Three runs that find that share; the same pictures are easy for all."""

    def ranks(share: float, count: int) -> list[int]:
        return [1 if i < share * count else 9 for i in range(count)]

    return [Run(trained, 1.0, ranks(share, pictures), ranks(kept, 100)) for _ in range(3)]


def compared(**shares: float) -> Comparison:
    ways = {name.replace("_", " "): share for name, share in shares.items()}
    ways = {way if way != "first" else "LoRA, first layers": ways[way] for way in ways}
    base = ways.pop("base", 0.2)
    return Comparison(
        runs(base, trained=0)[0],
        {way: runs(share, 0.8) for way, share in ways.items()},
        {way: None if way == "batch norm" else (1e-3, 10) for way in ways},
    )


def test_the_best_is_recommended_if_nothing_cheaper_is_as_good():
    found = recommend(compared(heads=0.3, first=0.6, full=0.5))
    assert (found.way, found.best, found.equals) == ("LoRA, first layers",) * 2 + ((),)
    assert found.gain.mean == pytest.approx(0.4)


def test_of_ways_that_can_not_be_told_apart_the_cheapest_is_recommended():
    found = recommend(compared(batch_norm=0.2, heads=0.495, LoRA=0.5, full=0.4))
    assert (found.way, found.best, found.equals) == ("heads", "LoRA", ("heads",))


def test_nothing_is_recommended_where_no_way_is_surely_better():
    comparison = compared(heads=0.205, LoRA=0.2)
    found = recommend(comparison)
    assert found.way is None and not found.gain.is_sure
    said = advice(comparison)
    assert "Keep the model as it is" in said and "200 pictures" in said


def test_the_advice_names_what_is_worse_what_is_forgotten_and_what_can_not_be_told():
    said = advice(compared(batch_norm=0.2, heads=0.495, LoRA=0.5, full=0.4))
    assert "Begin with: heads" in said
    assert "can't tell the two apart" in said
    assert "Surely worse than heads: batch norm; full" in said
    assert "forgets +10.0 points" in said


def test_what_costs_nothing_is_mentioned_beside_what_is_better():
    said = advice(compared(batch_norm=0.4, LoRA=0.6))
    assert "Begin with: LoRA" in said
    assert "batch norm alone, without any training, is worth +20.0 points" in said
    assert "alone" not in advice(compared(batch_norm=0.2, LoRA=0.6))


def test_without_known_pictures_the_advice_says_that_nothing_tells():
    one = compared(LoRA=0.5)
    bare = [Run(1, 1.0, run.new, []) for run in one.runs["LoRA"]]
    alone = Comparison(Run(0, 0.0, one.base.new, []), {"LoRA": bare}, one.settings)
    assert "nothing tells what it forgets" in advice(alone)
    assert math.isnan(alone.kept("LoRA"))
    assert "kept" not in str(mh.draw.ways(alone))
    assert len(alone.plot().axes) == 1


def test_the_table_has_a_row_a_way_with_shares_and_the_interval():
    table = mh.draw.ways(compared(batch_norm=0.2, LoRA=0.5))
    rows = {row[0]: row for row in table.rows}
    assert list(rows) == ["base", "batch norm", "LoRA"]
    assert rows["LoRA"][1:6] == ["5", "0.001 × 10", "50.0%", "50.0%", "80.0%"]
    assert rows["LoRA"][6].startswith("+30.0 points [+2")
    assert rows["base"][3:] == ["20.0%", "20.0%", "90.0%", "–"]


def test_the_chart_has_a_dot_a_seed_and_a_line_for_the_base_in_both_panels():
    comparison = compared(heads=0.3, LoRA=0.5)
    left, right = comparison.plot().axes
    for axes, base in ((left, 20), (right, 90)):
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert [len(line.get_xdata()) for line in dots] == [3, 3]
        assert axes.lines[0].get_xdata()[0] == pytest.approx(base)
    assert [label.get_text() for label in left.get_yticklabels()] == ["heads", "LoRA"]


@pytest.mark.parametrize("show", [mh.draw.ways, mh.draw.gains])
def test_anything_but_a_comparison_of_ways_is_refused(show):
    with pytest.raises(TypeError, match="this is a Run; pass a Comparison"):
        show(runs(0.5)[0])
    with pytest.raises(ValueError, match="holds no way"):
        show(Comparison(runs(0.5)[0], {}, {}))


def test_every_way_has_a_place_in_the_order_of_costs():
    found = recommend(compared(**{way.replace(" ", "_"): 0.5 for way in WAYS}))
    assert found.way == "batch norm"
