"""LoRA training on this machine's GPU: time, pairs per second and peak memory, for the README.

    python benchmarks/gpu.py [--model nano MobileCLIP2-S0] [--steps 20]

One row a model: the training steps of `mh.train` with the model's own recipe, in the precision that
`Compute` chose. The first steps, in which CUDA selects its kernels, are not counted. The weights of
Apple's models are random: a step costs the same. Without CUDA the row says "not measured", because
absolute times are only comparable on a GPU.
"""

from __future__ import annotations

import argparse
import time

import torch

import mclip_helpers as mh
from mclip_helpers.display import Table

WARM_UP = 5


def measure(name: str, steps: int) -> list[str]:
    """The row of one model: device, batch, ms a step, pairs a second, GB at the peak."""
    clip = mh.load_model(name, pretrained=None if name == "nano" else "random")
    recipe, compute = mh.recipe(clip), clip.compute
    if compute.device.type != "cuda":
        return [name, compute.name, *["not measured"] * 4]
    mh.inject_lora(clip.model, recipe.rank, recipe.alpha, targets=recipe.targets)
    parameters = mh.trainable_parameters(clip.model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-6)
    scaler = compute.scaler()
    images = torch.rand(recipe.batch_size, 3, *clip.image_size, device=clip.device)
    tokens = clip.tokenizer([f"picture {i}" for i in range(recipe.batch_size)]).to(clip.device)
    clip.model.train()
    for number in range(WARM_UP + steps):
        if number == WARM_UP:
            torch.cuda.synchronize()
            begun = time.perf_counter()
        optimizer.zero_grad()
        with compute.autocast():
            features = clip.model.encode_image(images), clip.model.encode_text(tokens)
        scale = clip.model.logit_scale.exp()
        loss = mh.contrastive_loss(*(f.float() for f in features), scale)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - begun) / steps
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    speed = recipe.batch_size / seconds
    row = [str(recipe.batch_size), f"{1000 * seconds:.0f} ms", f"{speed:.0f}", f"{peak:.1f} GB"]
    return [name, str(compute), *row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["nano", "MobileCLIP2-S0"])
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    header = ["", "device", "batch", "a step", "pairs a second", "peak memory"]
    print(Table(header, [measure(name, args.steps) for name in args.model]))


if __name__ == "__main__":
    main()
