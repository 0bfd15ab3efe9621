"""A training run as curves and as a table."""

from __future__ import annotations

from shown import png

import mclip_helpers as mh
from mclip_helpers import draw

HISTORY = mh.History(
    steps=[{"loss": loss, "lr": 0.1} for loss in (3.0, 2.0, 1.5, 1.0)],
    epochs=[
        {"epoch": 1, "loss": 2.5, "new": 0.25, "old": 0.5},
        {"epoch": 2, "loss": 1.25, "new": 0.75, "old": 0.5},
    ],
)


def test_history_draws_every_loss_and_every_recall_in_percent():
    chart = HISTORY.plot()
    loss, recall = chart.axes
    [line] = loss.lines
    assert line.get_xdata().tolist() == [1, 2, 3, 4]
    assert list(line.get_ydata()) == [3, 2, 1.5, 1]
    assert {line.get_label(): list(line.get_ydata()) for line in recall.lines} == {
        "new": [25, 75],
        "old": [50, 50],
    }


def test_history_without_an_evaluation_is_the_loss_alone():
    run = mh.History(HISTORY.steps, [{"epoch": 1, "loss": 2.0}])
    assert len(draw.history(run).axes) == 1
    png(draw.history(run))
    png(draw.history(mh.History()))


def test_history_draws_more_datasets_than_there_are_colours():
    shares = {f"set {i}": 0.1 * i for i in range(6)}
    _, recall = draw.history(mh.History([], [{"epoch": 1, "loss": 2.0, **shares}])).axes
    assert [line.get_label() for line in recall.lines] == list(shares)
