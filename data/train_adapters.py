"""Make the adapters in adapters/: nano learns a look, in the best way that LoRA has for it.

    python data/train_adapters.py                 # all three
    python data/train_adapters.py --looks sketch

Which layers, which learning rate and how many epochs are what the study chose (study.py), without
the test split. The card has the test split's numbers of this very adapter, with the interval of the
difference.
"""

from __future__ import annotations

import argparse

import torch
from study import LOOKS, OLD, task

import mclip_helpers as mh
from mclip_helpers.comparison import WAYS, difference, read_study
from mclip_helpers.comparison.runs import Run, adapt, measure, recall
from mclip_helpers.comparison.study import Job
from mclip_helpers.files import data_folder

SEED = 0


def best(look: str) -> tuple[str, float, int]:
    """The way of LoRA that did best where it was chosen, with its learning rate and epochs."""
    study, found = read_study(), {}
    for way in ("LoRA", "LoRA, first layers"):
        setting = study.chosen(look, way)
        assert setting is not None
        tried = study.run(Job("choose", look, way, *setting))
        found[tried.recall()] = (way, *setting)
    return found[max(found)]


def metrics(look: str, before: Run, after: Run) -> dict[str, tuple[float, float, float, float]]:
    found = {}
    for style, was, now in ((look, before.new, after.new), (OLD, before.kept, after.kept)):
        for k in (1, 5):
            shares = [recall(ranks, k) for ranks in (was, now)]
            change = difference([now], [was], k)
            name = f"R@{k}, picture to text, {style}, test split ({len(now)} pictures)"
            found[name] = (*shares, change.low, change.high)
    return found


def make(look: str) -> None:
    way, lr, epochs = best(look)
    its_task = task("measure", look)
    adapted = adapt(its_task, WAYS[way], lr=lr, epochs=epochs, seed=SEED)
    after = measure(adapted, its_task)
    data = (
        f"The train splits of {look} and {OLD}, {len(its_task.learn)} pictures, {epochs} epochs at "
        f"the learning rate {lr:g}. {its_task.learn.credit}."
    )
    assert adapted.lora_model is not None
    folder = mh.save_adapter(
        adapted.lora_model,
        data_folder() / "adapters" / look,
        data=data,
        metrics=metrics(look, read_study().base(look), after),
    )
    print((folder / "README.md").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--looks", nargs="+", choices=LOOKS, default=LOOKS)
    looks = parser.parse_args().looks
    torch.set_num_threads(1)  # as in the study: the same sums
    for look in looks:
        make(look)


if __name__ == "__main__":
    main()
