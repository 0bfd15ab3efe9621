"""Comparing the ways on one's own pictures, and the command for it."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from conftest import fresh, skeleton
from picture_folders import thermal_folder

import mclip_helpers as mh
from mclip_helpers.commands import compare as command
from mclip_helpers.comparison import own, plan, study
from mclip_helpers.comparison.ways import possible_ways


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return thermal_folder(tmp_path_factory.mktemp("pictures"))


base = functools.partial(fresh, "nano")
QUICK = {"ways": ["batch norm", "heads"], "epochs": 1}


def test_a_plan_splits_replays_and_counts_its_runs(folder, twemoji):
    pictures = mh.folder_dataset(folder)
    it = plan(base, pictures, known=twemoji, replay=0.25, ways=["batch norm", "heads", "LoRA"])
    assert (len(it.choose.new), len(it.measure.new)) == (6, 10)
    assert len(it.measure.learn) == 24 + 8 and it.choose.kept is None
    assert it.runs == 1 + 3 + 8 + 8
    assert it.measure.learn is it.choose.learn
    assert len(it.measure.kept) == round(0.25 * len(twemoji))
    said = own.describe(it)
    assert "32 pictures to learn from (25% of them replay)" in said
    assert "20 runs (batch norm; heads; LoRA)" in said


def test_nothing_is_measured_that_was_learned_or_chosen_with(folder):
    known = mh.emoji_dataset("twemoji", "val")
    it = plan(base, mh.folder_dataset(folder), known=known, replay=0.5)
    sides = [
        {pair.digest for pair in dataset.pairs}
        for dataset in (it.measure.learn, it.choose.new, it.measure.new, it.measure.kept)
    ]
    assert sum(map(len, sides)) == len(set().union(*sides))


def test_what_can_not_be_planned_is_refused(folder):
    pictures = mh.folder_dataset(folder)
    with pytest.raises(ValueError, match="replay needs known pictures"):
        plan(base, pictures, replay=0.5)
    with pytest.raises(ValueError, match="no way 'magic'"):
        plan(base, pictures, ways=["magic"])


def test_a_model_without_batch_norm_has_two_ways_less():
    assert len(possible_ways(skeleton("nano").model)) == 6
    ways = possible_ways(skeleton("ViT-B-32").model)
    assert "batch norm" not in ways and len(ways) == 4


@pytest.mark.parametrize(("captions", "classes"), [(10, True), (20, True), (21, False)])
def test_captions_that_repeat_are_names_of_classes(captions, classes):
    pairs = mh.emoji_dataset("twemoji", "val").pairs[:40]
    named = [replace(pair, captions=(f"kind {i % captions}",)) for i, pair in enumerate(pairs)]
    assert own.are_classes(mh.PictureDataset(named)) == classes


def test_it_goes_on_where_it_stopped_and_begins_anew_with_other_pictures(
    folder, tmp_path, monkeypatch
):
    pictures = mh.folder_dataset(folder)
    it = plan(base, pictures, **QUICK)
    running, calls = study.run, []

    def stopping(*arguments, **options):
        calls.append(arguments[1])
        if len(calls) == 5:
            raise KeyboardInterrupt
        return running(*arguments, **options)

    monkeypatch.setattr(study, "run", stopping)
    with pytest.raises(KeyboardInterrupt):
        own.compare(it, tmp_path, shown=False)
    comparison = own.compare(it, tmp_path, shown=False)
    assert len(calls) == it.runs - 1 + 1, "only the run that was interrupted is done again"
    again = own.compare(plan(base, pictures, **QUICK), tmp_path, shown=False)
    assert len(calls) == it.runs
    assert again.runs == comparison.runs
    own.compare(plan(base, pictures.head(36), **QUICK), tmp_path, shown=False)
    assert len(calls) > it.runs
    assert len(list(tmp_path.glob("runs-*.jsonl"))) == 2


def test_the_command_ends_with_a_table_a_picture_and_advice(folder, tmp_path, capsys):
    out = tmp_path / "out"
    command.main(
        f"--model nano --pictures {folder} --out {out} --epochs 1 --ways heads --known twemoji "
        f"--replay 0.2".split()
    )
    said = capsys.readouterr().out
    assert "[9/9]" in said
    report = (out / "report.txt").read_text(encoding="utf-8")
    assert report in said
    assert "heads" in report and "R@1 kept" in report
    assert (out / "comparison.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--pictures", "nowhere"], "nowhere"),
        (["--pictures", "{folder}", "--replay", "0.5"], "replay needs known pictures"),
        (["--pictures", "{folder}", "--epochs", "0"], "epochs"),
    ],
)
def test_the_command_ends_in_a_sentence_where_it_can_not_work(folder, tmp_path, arguments, says):
    arguments = [argument.format(folder=folder) for argument in arguments]
    with pytest.raises(SystemExit, match=f"mclip-compare: .*{says}"):
        command.main(["--model", "nano", "--out", str(tmp_path), *arguments])


def test_pictures_of_ten_classes_are_compared(tmp_path):
    place = tmp_path / "classes"
    place.mkdir()
    lines = ["file_name,text"]
    for i, (picture, _) in enumerate(mh.emoji_dataset("twemoji", "train").head(60)):
        picture.save(place / f"{i}.png")
        lines.append(f"{i}.png,class {i % 10}")
    (place / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    pictures = mh.folder_dataset(place)
    assert own.are_classes(pictures)
    it = plan(base, pictures, classes=True, ways=["heads"], epochs=1)
    assert it.measure.batch_size > 10
    comparison = own.compare(it, tmp_path / "out", shown=False)
    assert len(comparison.runs["heads"]) == 3
