"""`mclip-finetune`, in one process and in two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import fresh
from picture_folders import thermal_folder

import mclip_helpers as mh
from mclip_helpers.commands import finetune
from mclip_helpers.gradient import gradient_diff

QUICK = ["--model", "nano", "--epochs", "2", "--batch-size", "8", "--rank", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return thermal_folder(tmp_path_factory.mktemp("pictures"))


def test_a_folder_becomes_an_adapter_with_a_card(folder: Path, tmp_path: Path, capsys):
    out = tmp_path / "adapter"
    finetune.main([*QUICK, "--pictures", str(folder), "--out", str(out), "--known", "twemoji"])
    said = capsys.readouterr().out
    assert "28 pictures to learn from, 4 to choose with, 8 to measure with" in said
    assert "12,056" not in said and "3,014 of" in said, "rank 2 has a quarter of rank 8"
    assert "R@1, known pictures, test split: " in said and "points [" in said
    mh.load_adapter(fresh("nano").model, out)
    assert "test split" in (out / "README.md").read_text()


def test_pictures_that_are_decoded_once_make_the_same_adapter(folder: Path, tmp_path: Path):
    made = []
    for more in ([], ["--cache", tmp_path / "cache"]):
        out = tmp_path / str(len(made))
        arguments = [*QUICK, "--pictures", folder, "--out", out, "--no-augment", *more]
        finetune.main([str(argument) for argument in arguments])
        lora_model = mh.load_adapter(fresh("nano").model, out)
        made.append({n: p.detach() for n, p in lora_model.named_parameters() if ".lora_" in n})
    assert len(list((tmp_path / "cache").glob("pictures-*"))) == 2
    assert all(torch.equal(p, made[1][name]) for name, p in made[0].items())


def test_two_processes_make_the_adapter_of_one(folder: Path, tmp_path: Path):
    """As torchrun starts them; without augmentation, the pictures are the same.

    (`accelerate launch` prepares the same variables, but no two processes on one CPU without MPI.)
    """
    made = []
    for count in (1, 2):
        out = tmp_path / str(count)
        arguments = [*QUICK, "--pictures", folder, "--out", out, "--no-augment", "--lr", "1e-3"]
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launch += ["--nproc_per_node", str(count)]
        launch += ["-m", "mclip_helpers.commands.finetune", *map(str, arguments)]
        done = subprocess.run(
            launch,
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("2 processes" in done.stdout) == (count == 2)
        lora_model = mh.load_adapter(fresh("nano").model, out)
        made.append({n: p for n, p in lora_model.named_parameters() if ".lora_" in n})
    # `gradient_diff` compares any tensors by name.
    assert 0 < gradient_diff(*made).total < 1e-2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--replay", "0.5"], "replay 0.5 needs --known"),
        (["--rank", "0"], "rank is 0"),
        (["--targets", "nothing"], "nothing"),
        (["--batch-size", "1000"], "batch_size is 1000"),
    ],
)
def test_what_can_not_work_ends_in_a_sentence(folder, tmp_path, arguments, message):
    out = tmp_path / "adapter"
    with pytest.raises(SystemExit) as stop:
        finetune.main([*QUICK, "--pictures", str(folder), "--out", str(out), *arguments])
    assert message in str(stop.value) and str(stop.value).startswith("mclip-finetune: ")
    assert not out.exists()


def test_pictures_must_come_from_one_place(capsys):
    with pytest.raises(SystemExit):
        finetune.main(["--model", "nano", "--out", "x"])
    assert "one of the arguments --pictures --hub --shards is required" in capsys.readouterr().err


def test_help_says_what_it_does(capsys):
    with pytest.raises(SystemExit) as stop:
        finetune.main(["--help"])
    assert stop.value.code == 0
    assert "accelerate launch" in capsys.readouterr().out
