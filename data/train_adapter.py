"""Train the adapter that notebook 00 shows: nano learns OpenMoji's style. Writes openmoji-adapter/.

    python data/train_adapter.py

The settings are those of notebook 05, which explains them. Prints the model card, with retrieval
on the validation split before and after; only the notebooks use the test split.
"""

from __future__ import annotations

import torch
from torchvision.transforms import RandomAffine

import mclip_helpers as mh
from mclip_helpers.files import data_folder


def main() -> None:
    clip = mh.load_model("nano")
    watched = {
        f"{style} ({age} style)": mh.emoji_dataset(style.lower(), "val")
        for style, age in (("OpenMoji", "new"), ("Twemoji", "old"))
    }
    before = {name: mh.evaluate(clip, emoji).image_to_text[1] for name, emoji in watched.items()}

    torch.manual_seed(0)
    peft = mh.inject_lora(clip.model, rank=8, alpha=16, targets="image")
    pairs = mh.emoji_dataset("openmoji", "train") + mh.emoji_dataset("twemoji", "train")
    history = mh.train(
        clip,
        pairs,
        epochs=5,
        batch_size=128,
        lr=1e-3,
        seed=0,
        augment=RandomAffine(
            degrees=10, translate=(0.05, 0.05), scale=(0.85, 1.1), fill=(255,) * 3
        ),
        evaluate_on=watched,
    )
    metrics = {
        f"R@1, picture to text, {name}, validation split": (before[name], history.epochs[-1][name])
        for name in watched
    }
    data = f"The train splits of both styles, {len(pairs)} emoji. {pairs.credit}."
    folder = mh.save_adapter(peft, data_folder() / "openmoji-adapter", data=data, metrics=metrics)
    print((folder / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
