"""The study: it chooses without the test split, does each run once, goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_scripts import script

import mclip_helpers as mh
from mclip_helpers.comparison import WAYS, Run, Study, read_study
from mclip_helpers.comparison.study import EPOCHS, Job, read_runs
from mclip_helpers.data.batches import DrawnCaptions
from mclip_helpers.training.recipes import NANO_RATES

study = script("study")


def fake(job: Job) -> Run:
    """A run that costs nothing: the longer one at the second rate finds most."""
    second = job.way in WAYS and job.lr in NANO_RATES.get(WAYS[job.way].method, ())[1:2]
    hits = 0 if not second else 2 if job.epochs == 2 * EPOCHS[job.pictures] else 1
    return Run(trained=1, seconds=0.0, new=[1] * hits + [2, 2, 7][hits:], kept=[1, 1, 2])


@pytest.fixture
def done(monkeypatch) -> list[Job]:
    """The jobs that are done, in their order; each costs nothing."""
    jobs: list[Job] = []

    def do(job: Job) -> Run:
        jobs.append(job)
        return fake(job)

    monkeypatch.setattr(study, "do", do)
    return jobs


def go_on(path: Path, part: str, look: str) -> None:
    study.PARTS[part][0](study.open_study(path), look)


@pytest.mark.parametrize(("part", "pictures"), [("ways", None), ("pictures", 64)])
def test_every_way_has_as_many_tries_and_three_seeds(done, tmp_path, part, pictures):
    go_on(tmp_path / "study.jsonl", part, "thermal")
    ways = {job.way for job in done if WAYS.get(job.way, WAYS["batch norm"]).prepare is not None}
    assert ways == (set(WAYS) - {"batch norm"} if part == "ways" else set(study.FEW))
    for way in ways:
        its = [job for job in done if job.way == way and job.pictures == pictures]
        tries = [job for job in its if job.purpose == "choose"]
        final = [job for job in its if job.purpose == "measure"]
        assert len({(job.lr, job.epochs) for job in tries}) == len(tries) == 5
        assert [job.seed for job in final] == [0, 1, 2]
        best = (NANO_RATES[WAYS[way].method][1], 2 * EPOCHS[pictures])
        assert {(job.lr, job.epochs) for job in final} == {best}


def test_without_replay_only_replay_differs(done, tmp_path):
    path = tmp_path / "study.jsonl"
    go_on(path, "ways", "thermal")
    with_replay = {job.way: job for job in done if job.purpose == "measure"}
    del done[:]
    go_on(path, "replay", "thermal")
    assert {job.way for job in done} == set(WAYS)
    for job in done:
        other = with_replay[job.way]
        assert not job.replay and job.lr == other.lr
        assert job.epochs == (other.epochs and 2 * other.epochs), "an epoch is half as long"


@pytest.mark.parametrize("part", ["regions", "ranks"])
def test_adapters_that_are_compared_in_one_thing_share_the_rest(done, tmp_path, part):
    go_on(tmp_path / "study.jsonl", part, "thermal")
    assert len({(job.lr, job.epochs, job.purpose) for job in done}) == 1
    assert len(done) == 3 * len({job.way for job in done}) > 20


def test_it_goes_on_where_it_stopped(done, tmp_path, monkeypatch):
    path = tmp_path / "study.jsonl"
    doing = study.do

    def interrupted(job: Job) -> Run:
        if len(done) == 20:
            raise KeyboardInterrupt
        return doing(job)

    monkeypatch.setattr(study, "do", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go_on(path, "ways", "sketch")
    monkeypatch.setattr(study, "do", doing)
    go_on(path, "ways", "sketch")
    assert len(done) == len(set(done)), "nothing is done twice"
    runs = read_runs(path)
    assert list(runs) == done
    assert all(runs[job] == fake(job) for job in done)


def test_what_is_not_there_is_not_made_up(tmp_path):
    with pytest.raises(KeyError, match="not in the study"):
        Study(read_runs(tmp_path / "none.jsonl")).base("thermal")


def test_the_stored_study_has_no_run_that_nothing_asks_for():
    """Parts may be missing while it is going on; a run of old settings would only mislead."""
    asked: set[Job] = set()

    class Asking(Study):
        def run(self, job: Job) -> Run:
            asked.add(job)
            return super().run(job)

    before = read_study().runs
    stored = Asking(before, do=fake)
    for part, looks in study.PARTS.values():
        for look in looks:
            part(stored, look)
    assert set(before) <= asked


def test_what_is_there_can_be_shown_at_any_time(done, tmp_path, capsys):
    path = tmp_path / "study.jsonl"
    study.show(Study(read_runs(path)))
    go_on(path, "ways", "openmoji")
    capsys.readouterr()
    study.show(Study(read_runs(path)))
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


def test_few_pictures_are_the_same_concepts_in_both_looks_and_a_part_of_the_larger_set():
    learned = {
        count: {pair.name for pair in study.task("measure", "thermal", count).learn.pairs}
        for count in (16, 64, None)
    }
    assert learned[16] < learned[64] < learned[None]
    for count in (16, 64):
        styles: dict[str, set[str]] = {}
        for name in learned[count]:
            style, _, code = name.rpartition("/")
            styles.setdefault(style, set()).add(code)
        new, old = styles.values()
        assert new == old and len(new) == count
    for count in (16, 64, 256, None):  # two pictures of one concept never meet in a batch
        few = study.task("measure", "thermal", count)
        assert few.batch_size == min(128, count or 128)
        assert len(DrawnCaptions(few.learn, few.batch_size)) > 0
    alone = study.task("measure", "thermal", replay=False).learn
    assert {pair.name.rpartition("/")[0] for pair in alone.pairs} == {"thermal"}
