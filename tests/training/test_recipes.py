"""The numbers to begin with: there for every model, and such that a step fits the memory."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import skeleton

import mclip_helpers as mh
from mclip_helpers.comparison import read_study
from mclip_helpers.comparison.study import BATCH_SIZE
from mclip_helpers.comparison.ways import ALPHA, RANK
from mclip_helpers.model import Compute
from mclip_helpers.training import recipes
from mclip_helpers.training.recipes import Recipe

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Pretended(Compute):
    """A GPU of which only the size is known."""

    free: int = 0

    @property
    def free_memory(self) -> int:
        return self.free


def on_gpu(name: str, free: float, precision: torch.dtype = torch.float16) -> Recipe:
    """The recipe for a model `name` on a GPU with `free` GiB."""

    class OnGpu(mh.Clip):
        device = torch.device("cuda")

    compute = Pretended(torch.device("cuda"), precision, 2, "a GPU", int(free * GIB))
    return mh.recipe(OnGpu(None, None, None, name, "random", compute))


def test_every_mobileclip_has_its_memory_measured():
    assert set(recipes.MB_PER_PAIR) == set(mh.mobileclip_names()) - {"nano"}


@pytest.mark.parametrize("name", mh.mobileclip_names())
@pytest.mark.parametrize("free", [6, 14.5, 22, 79])
def test_a_step_fits_the_memory(name: str, free: float):
    batch = on_gpu(name, free).batch_size
    assert 8 <= batch <= 128
    kept = recipes.MB_PER_PAIR.get(name, 3) * 1e6 * batch
    assert kept < free * GIB


def test_more_memory_and_half_precision_allow_larger_batches():
    batches = [on_gpu("MobileCLIP2-S4", free).batch_size for free in (4, 8, 16, 80)]
    assert batches == sorted(batches) and batches[0] < batches[-1] == 128
    full = on_gpu("MobileCLIP2-S0", 14.5, torch.float32).batch_size
    assert full < on_gpu("MobileCLIP2-S0", 14.5).batch_size


@pytest.mark.parametrize(("pictures", "batch"), [(2, 2), (3, 2), (11, 5), (24, 12)])
def test_the_batch_fits_the_pictures_and_gives_two(emoji, pictures: int, batch: int):
    clip = skeleton("nano")
    few = emoji.subset(range(pictures))
    assert mh.recipe(clip, few).batch_size == batch
    assert mh.recipe(clip, few + few).batch_size == batch, "copies don't count"
    assert mh.recipe(clip) == dataclasses.replace(mh.recipe(clip, few), batch_size=128)


def test_nanos_numbers_are_those_that_its_stored_results_were_made_with():
    recipe = mh.recipe(skeleton("nano"))
    study = read_study()
    way = {"first": "LoRA, first layers"}[recipe.targets]
    assert (recipe.lr["LoRA"], recipe.epochs) == study.chosen("thermal", way)
    for method in ("heads", "full"):
        assert recipe.lr[method] == study.chosen("thermal", method)[0]
    assert (recipe.rank, recipe.alpha, recipe.batch_size) == (RANK, ALPHA, BATCH_SIZE)
    assert all(recipe.lr[method] in rates for method, rates in recipe.rates.items())


def test_the_rates_of_other_models_lie_around_the_literatures():
    recipe = mh.recipe(skeleton("MobileCLIP2-S0"))
    assert recipe.rates["LoRA"] == (7e-5, 2e-4, 6e-4, 2e-3)
    assert all(rates[1] == recipe.lr[method] for method, rates in recipe.rates.items())


@pytest.mark.parametrize("name", ["nano", "MobileCLIP2-S0", "MobileCLIP-B"])
def test_the_targets_exist_and_the_words_say_it_all(name: str):
    clip = skeleton(name)
    recipe = mh.recipe(clip)
    said = str(recipe)
    assert f"batches of {recipe.batch_size}" in said and name in said
    assert all(f"{way} {lr:g}" in said for way, lr in recipe.lr.items())
    assert mh.inject_lora(clip.model, recipe.rank, recipe.alpha, targets=recipe.targets)


def test_a_model_that_nobody_measured_gets_a_careful_batch():
    assert on_gpu("ViT-H-14", 14.5).batch_size <= on_gpu("MobileCLIP2-S4", 14.5).batch_size


def test_budget_is_full_unless_the_environment_wants_it_short(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MCLIP_SHORT", raising=False)
    assert mh.budget(30) == 30
    monkeypatch.setenv("MCLIP_SHORT", "1")
    assert mh.budget(30) == 1
    assert mh.budget(30, short=2) == 2
