"""What autograd keeps of one pair of picture and caption: the numbers behind `recipes.MB_PER_PAIR`.

    python benchmarks/memory.py [--model MobileCLIP2-S0 …]

Bytes are counted by the recorder of notebook 04 during one training step of two pairs in fp32, and
don't depend on the machine. The weights are random: a step keeps the same.
"""

from __future__ import annotations

import argparse

import torch

import mclip_helpers as mh

PAIRS = 2


def kept(name: str, targets: str) -> float:
    """MB that autograd keeps for each pair in a LoRA step with these targets."""
    clip = mh.load_model(name, pretrained="random", device="cpu")
    peft = mh.inject_lora(clip.model, targets=targets)
    images = torch.rand(PAIRS, 3, *clip.image_size)
    tokens = clip.tokenizer(["a cat", "a dog"])
    with mh.trace(peft) as tape:
        features = clip.model.encode_image(images), clip.model.encode_text(tokens)
        mh.contrastive_loss(*features, clip.model.logit_scale.exp()).backward()
    return tape.graph.saved.total / PAIRS / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=mh.mobileclip_names())
    names = parser.parse_args().model
    rows = []
    for name in names:
        rows.append([name, *(f"{kept(name, targets):.0f}" for targets in ("image", "default"))])
    print("MB kept for one pair, fp32, LoRA of rank 8")
    print(mh.draw.Table(["", "image targets", "default targets"], rows))


if __name__ == "__main__":
    main()
