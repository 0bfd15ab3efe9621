"""What autograd keeps for one pair of picture and caption: the numbers behind `MB_PER_PAIR`.

    python benchmarks/memory.py [--model MobileCLIP2-S0 …]

The recorder of notebook 04 counts the saved tensors' bytes in one training step of two pairs in
fp32. They don't depend on the machine, nor on the weights, which are random here.
"""

from __future__ import annotations

import argparse

import torch

import mclip_helpers as mh
from mclip_helpers.display import Table

PAIRS = 2


def saved_per_pair(name: str, targets: str) -> float:
    """MB that autograd keeps for each pair in a LoRA step with these targets."""
    clip = mh.load_model(name, pretrained="random", device="cpu")
    lora_model = mh.inject_lora(clip.model, targets=targets)
    images = torch.rand(PAIRS, 3, *clip.image_size)
    tokens = clip.tokenizer(["a cat", "a dog"])
    with mh.trace(lora_model) as tape:
        features = clip.model.encode_image(images), clip.model.encode_text(tokens)
        mh.contrastive_loss(*features, clip.model.logit_scale.exp()).backward()
    return tape.graph.saved.total / PAIRS / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=mh.mobileclip_names())
    names = parser.parse_args().model
    rows = []
    for name in names:
        megabytes = [saved_per_pair(name, targets) for targets in ("image", "default")]
        rows.append([name, *(f"{number:.0f}" for number in megabytes)])
    print("MB kept for one pair, fp32, LoRA of rank 8")
    print(Table(["", "image targets", "default targets"], rows))


if __name__ == "__main__":
    main()
