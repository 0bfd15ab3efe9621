"""What a history shows of itself: a table, and a picture of the losses and the recalls."""

from __future__ import annotations

import pytest

import mclip_helpers as mh


def records(epochs: int, **sets: float) -> mh.History:
    steps = [{"loss": 3.0 - i, "lr": 0.1} for i in range(2 * epochs)]
    return mh.History(steps, [{"epoch": i + 1, "loss": 2.5, **sets} for i in range(epochs)])


def test_the_plot_holds_the_losses_and_a_line_for_each_set():
    history = records(2, train=0.5, val=0.25)
    loss, recall = history.plot().axes
    (line,) = loss.get_lines()
    assert list(line.get_ydata()) == [3.0, 2.0, 1.0, 0.0]
    assert list(line.get_xdata()) == [1, 2, 3, 4]
    drawn = {line.get_label(): list(line.get_ydata()) for line in recall.get_lines()}
    assert drawn == {"train": [50.0, 50.0], "val": [25.0, 25.0]}


def test_without_evaluation_the_plot_is_of_the_loss_alone():
    assert len(records(1).plot().axes) == 1
    assert len(mh.History().plot().axes) == 1


def test_the_table_has_a_row_an_epoch_and_a_column_a_set():
    html = records(2, val=0.25)._repr_html_()
    assert html.count("<tr") == 3
    for shown in ("epoch", "loss", "val", "2.500", "25.0%"):
        assert shown in html
    assert "epoch" in mh.History()._repr_html_()


def test_the_table_has_the_epoch_the_mean_loss_and_shares_in_per_cent():
    history = mh.History(
        epochs=[
            {"epoch": 1, "loss": 2.5, "new": 0.25, "old": 0.5},
            {"epoch": 2, "loss": 1.25, "new": 0.75, "old": 0.5},
        ]
    )
    assert history.evaluated == ["new", "old"]
    table = history.table()
    assert table.header == ["epoch", "loss", "new", "old"]
    assert table.rows == [["1", "2.500", "25.0%", "50.0%"], ["2", "1.250", "75.0%", "50.0%"]]
    assert table._repr_html_() == history._repr_html_()


@pytest.mark.parametrize("history", [mh.History(), mh.History(epochs=[{"epoch": 1, "loss": 2.0}])])
def test_without_evaluation_the_table_is_of_the_loss_alone(history: mh.History):
    assert history.evaluated == []
    assert history.table().header == ["epoch", "loss"]
    assert len(history.table().rows) == len(history.epochs)
