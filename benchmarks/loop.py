"""What `mh.train` costs beside a bare loop that takes the same steps.

    python benchmarks/loop.py [--batch 32] [--epochs 2] [--rounds 3]

The bare loop is that of notebook 05 without its checks: no look at whether loss and gradient are
finite, no copy of the last whole step, no history. Both take the same batches in the same order and
end with the same weights, which is checked. `fast=False`: no lever in either of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

import mclip_helpers as mh
from mclip_helpers import comparison
from mclip_helpers.display import Table
from mclip_helpers.speed import ratio, take_turns

LR = 1e-4


def prepared(way: str) -> mh.Clip:
    clip = mh.load_model("nano", device="cpu")
    torch.manual_seed(0)
    prepare = comparison.WAYS[way].prepare
    assert prepare is not None
    prepare(clip)
    return clip


def bare(clip: mh.Clip, data: mh.PictureDataset, batch: int, epochs: int) -> None:
    model = clip.model
    batches = mh.loader(data, clip, batch, shuffle=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)
    steps = epochs * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: mh.warmup_cosine(step, steps)
    )
    model.train()
    for epoch in range(epochs):
        mh.set_epoch(batches, epoch)
        for images, tokens in batches:
            optimizer.zero_grad()
            features = model.encode_image(images), model.encode_text(tokens)
            mh.contrastive_loss(*features, model.logit_scale.exp()).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def ours(clip: mh.Clip, data: mh.PictureDataset, batch: int, epochs: int) -> None:
    mh.train(clip, data, epochs=epochs, batch_size=batch, lr=LR, fast=False, progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    data = mh.emoji_dataset("thermal", "train").head(8 * args.batch)
    rows = []
    for way in ("LoRA, first layers", "full, batch norm held"):
        ends: dict[str, mh.Clip] = {}

        def run(name: str, loop: Callable[..., None], way: str = way, ends: dict = ends) -> None:
            ends[name] = prepared(way)
            ends[name].model.logit_scale.requires_grad_(False)
            loop(ends[name], data, args.batch, args.epochs)

        loops = {"bare": lambda: run("bare", bare), "mh.train": lambda: run("mh.train", ours)}
        seconds = take_turns(loops, args.rounds)
        states = [clip.model.state_dict() for clip in ends.values()]
        same = all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        assert same, "the two loops have not taken the same steps"
        rows.append([way, ratio(seconds["mh.train"], seconds["bare"])])
    print(f"nano, batches of {args.batch}, {args.epochs} epochs of {len(data)} pairs; same bits")
    print(Table(["", "mh.train / bare loop"], rows))


if __name__ == "__main__":
    main()
