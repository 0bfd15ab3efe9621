"""The study: it chooses without the test split, does each run once, goes on where it stopped."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import mclip_helpers as mh
from mclip_helpers.comparison import WAYS, Run

FILE = Path(__file__).parents[2] / "data" / "study.py"
spec = importlib.util.spec_from_file_location("study", FILE)
study = sys.modules["study"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(study)


def fake(job: study.Job) -> Run:
    """A run that costs nothing: the longest one at the second rate finds most."""
    good = job.epochs == 20 and job.lr == study.RATES.get(job.way, (0, 0))[1]
    return Run(trained=1, seconds=0.0, new=[1 if good else 2, 2, 7], kept=[1, 1, 2])


@pytest.fixture
def done(monkeypatch) -> list[study.Job]:
    """The jobs that are done, in their order; each costs nothing."""
    jobs: list[study.Job] = []

    def do(job: study.Job) -> Run:
        jobs.append(job)
        return fake(job)

    monkeypatch.setattr(study, "do", do)
    return jobs


def test_every_way_has_as_many_tries_and_three_seeds(done, tmp_path):
    study.study(tmp_path / "study.jsonl", ["thermal"])
    trained = [way for way, what in WAYS.items() if what.prepare is not None]
    for way in trained:
        tries = [job for job in done if (job.purpose, job.way) == ("choose", way)]
        final = [job for job in done if (job.purpose, job.way) == ("measure", way)]
        assert len({(job.lr, job.epochs) for job in tries}) == len(tries) == 8
        assert [job.seed for job in final] == [0, 1, 2]
        assert {(job.lr, job.epochs) for job in final} == {(study.RATES[way][1], 20)}
    assert len([job for job in done if job.way == "batch norm"]) == 3


def test_a_try_that_diverges_is_not_chosen():
    tries = study.tries("thermal", "LoRA")
    runs = [Run(1, 0.0, new=[1] * i + [2] * (8 - i), kept=[]) for i in range(8)]
    results = dict(zip(tries, runs, strict=True))
    assert study.chosen(results, "thermal", "LoRA") == tries[7]
    results[tries[7]] = Run(1, 0.0, new=[1] * 8, kept=[], diverged=True)
    assert study.chosen(results, "thermal", "LoRA") == tries[6]


def test_it_goes_on_where_it_stopped(done, tmp_path, monkeypatch):
    path = tmp_path / "study.jsonl"
    doing = study.do

    def interrupted(job: study.Job) -> Run:
        if len(done) == 20:
            raise KeyboardInterrupt
        return doing(job)

    monkeypatch.setattr(study, "do", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study.study(path, ["sketch"])
    monkeypatch.setattr(study, "do", doing)
    study.study(path, ["sketch"])
    assert len(done) == len(set(done)), "nothing is done twice"
    results = study.read(path)
    assert list(results) == done
    assert all(results[job] == fake(job) for job in done)


def test_what_is_there_can_be_shown_at_any_time(done, tmp_path, capsys):
    path = tmp_path / "study.jsonl"
    study.show(study.read(path))
    study.study(path, ["openmoji"])
    capsys.readouterr()
    study.show(study.read(path))
    shown = capsys.readouterr().out
    assert "openmoji" in shown and "thermal" not in shown
    assert all(way in shown for way in WAYS)


@pytest.mark.parametrize("look", study.LOOKS)
def test_choosing_never_sees_the_test_split_nor_what_it_learned_from(look):
    family = {item.code: item.family for item in mh.emoji_catalogue()}
    split = {item.code: item.split for item in mh.emoji_catalogue()}

    def codes(dataset: mh.PictureDataset) -> set[str]:
        return {pair.name.rpartition("/")[2] for pair in dataset.pairs}

    choosing = study.task("choose", look)
    learned, asked = codes(choosing.learn), codes(choosing.new)
    assert codes(choosing.kept) == asked
    assert not {split[code] for code in learned | asked} & {"test"}
    assert not {family[code] for code in learned} & {family[code] for code in asked}
    final = study.task("measure", look)
    assert {split[code] for code in codes(final.learn)} == {"train"}
    assert {split[code] for code in codes(final.new)} == {"test"}
