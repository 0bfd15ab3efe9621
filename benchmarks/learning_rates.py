"""Choose a learning rate for each method of notebook 05, without the test split.

    python benchmarks/learning_rates.py [--epochs 8]

The validation split alone is small (some 110 emoji), so some families of the train split are held
out as well. Each method is trained on the rest and evaluated on both together, in both styles. The
rate with the best R@1 in the new style wins; R@1 in the old style is printed beside it. With fewer
pictures to train on than in the notebook, 8 epochs here are about as many steps as 5 there.
"""

from __future__ import annotations

import argparse
import hashlib

import torch
from torchvision.transforms import RandomAffine
from training_step import full, heads

import mclip_helpers as mh

GRID = {
    "LoRA": (1e-3, 2e-3, 4e-3),
    "full": (1e-4, 2e-4, 4e-4),
    "heads": (1e-3, 2e-3, 4e-3),
}


def prepared(method: str) -> mh.Clip:
    """A fresh model, prepared for `method` as in notebook 05."""
    clip = mh.load_model("nano")
    torch.manual_seed(0)
    if method == "LoRA":
        mh.inject_lora(clip.model, rank=8, alpha=16, targets="image")
    elif method == "full":
        full(clip.model)
    else:
        heads(clip.model)
    return clip


def train_and_choose(style: str) -> tuple[mh.PictureDataset, mh.PictureDataset]:
    """Pairs to train on, and pairs of other families to choose with."""
    family = {f"{style}/{item.code}": item.family for item in mh.emoji_catalogue()}
    train = mh.emoji_dataset(style, "train")
    held_out = [hashlib.sha256(family[p.name].encode()).digest()[31] >= 150 for p in train.pairs]
    learn = train.subset(i for i, held in enumerate(held_out) if not held)
    choose = train.subset(i for i, held in enumerate(held_out) if held)
    return learn, choose + mh.emoji_dataset(style, "val")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    (new_learn, new_choose), (old_learn, old_choose) = (
        train_and_choose(style) for style in ("openmoji", "twemoji")
    )
    augment = RandomAffine(degrees=10, translate=(0.05, 0.05), scale=(0.85, 1.1), fill=(255,) * 3)
    print(f"training on {len(new_learn)} emoji in two styles, choosing with {len(new_choose)}")

    rows = []

    def record(method: str, lr: str, clip: mh.Clip) -> None:
        new, old = mh.evaluate(clip, new_choose), mh.evaluate(clip, old_choose)
        shares = (new.image_to_text[1], new.image_to_text[5], old.image_to_text[1])
        rows.append([method, lr, *(f"{share:.1%}" for share in shares)])
        print(*rows[-1], flush=True)

    record("base", "–", mh.load_model("nano"))
    for method, rates in GRID.items():
        for lr in rates:
            clip = prepared(method)
            mh.train(
                clip,
                new_learn + old_learn,
                epochs=args.epochs,
                batch_size=128,
                lr=lr,
                augment=augment,
                progress=False,
            )
            record(method, f"{lr:g}", clip)
    print()
    print(mh.draw.Table(["", "lr", "OpenMoji R@1", "OpenMoji R@5", "Twemoji R@1"], rows))


if __name__ == "__main__":
    main()
