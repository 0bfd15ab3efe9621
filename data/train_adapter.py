"""Train the adapter that notebook 00 shows: nano learns OpenMoji's style. Writes openmoji-adapter/.

    python data/train_adapter.py

The settings are those of notebook 05, which explains them. Prints retrieval before and after, on
the validation split; the test split is looked at in the notebooks alone.
"""

from __future__ import annotations

import torch
from torchvision.transforms import RandomAffine

import mclip_helpers as mh
from mclip_helpers.models import data_folder


def main() -> None:
    clip = mh.load_model("nano")
    new, old = (mh.emoji_dataset(style, "val") for style in ("openmoji", "twemoji"))
    print(f"before\n{mh.evaluate(clip, new)}")

    torch.manual_seed(0)
    peft = mh.inject_lora(clip.model, rank=8, alpha=16, targets="image")
    mh.train(
        clip,
        mh.emoji_dataset("openmoji", "train") + mh.emoji_dataset("twemoji", "train"),
        epochs=5,
        batch_size=128,
        lr=1e-3,
        seed=0,
        augment=RandomAffine(
            degrees=10, translate=(0.05, 0.05), scale=(0.85, 1.1), fill=(255,) * 3
        ),
        evaluate_on={"OpenMoji (new)": new, "Twemoji (old)": old},
    )
    print(f"after\n{mh.evaluate(clip, new)}")
    print(mh.save_adapter(peft, data_folder() / "openmoji-adapter"))


if __name__ == "__main__":
    main()
