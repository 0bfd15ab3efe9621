"""The memory of a training step: a batch at once, beside a large one in chunks (GradCache).

    python benchmarks/large_batch.py [--model nano] [--small 64] [--large 1024] [--whole]

Each runs two steps in a process of its own. Reported are the most memory that this process held
(resident set), how much of it came with the steps, and what `step_memory` had foretold of that from
eight pairs. `--whole` runs the large batch at once, too; it may need more memory than there is.
LoRA on the image tower; weights other than nano's are random.

The processes run with MALLOC_MMAP_THRESHOLD_=131072. Without it, glibc raises that threshold as
large tensors come and go, keeps their memory in its own heap, and the process holds up to half as
much again. `--usual-malloc` shows it. (It is a setting of glibc: on Linux.)
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import torch
from _peak import held

import mclip_helpers as mh
from mclip_helpers.display import Table
from mclip_helpers.speed import plain_encoders, step_memory
from mclip_helpers.training.objective import Objective

FEW = 8


def measure(name: str, batch: int, chunk: int | None) -> tuple[float, float, float]:
    """MB: the peak before the steps, the peak after them, and what they were to take."""
    clip = mh.load_model(name, pretrained=None if name == "nano" else "random", device="cpu")
    mh.inject_lora(clip.model, targets="image")
    clip.model.train()
    objective = Objective(clip, plain_encoders(clip), chunk=chunk)
    torch.manual_seed(0)
    tokens = clip.tokenizer([f"picture {i}" for i in range(batch)])
    foretold = step_memory(clip, torch.rand(FEW, 3, *clip.image_size), tokens[:FEW])
    before = held()
    few = foretold.bytes(FEW)  # the peak has known these already
    images = torch.rand(batch, 3, *clip.image_size)
    for _ in range(2):
        clip.model.zero_grad()
        objective.backward(images, tokens)
    return before - few / 1e6, held(), foretold.bytes(batch, chunk) / 1e6


def in_a_process(name: str, batch: int, chunk: int | None, usual_malloc: bool) -> list[float]:
    command = [sys.executable, __file__, "--model", name, "--child", str(batch), str(chunk or 0)]
    environment = os.environ | ({} if usual_malloc else {"MALLOC_MMAP_THRESHOLD_": "131072"})
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [float(number) for number in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--small", type=int, default=64)
    parser.add_argument("--large", type=int, default=1024)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--usual-malloc", action="store_true")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        batch, chunk = args.child
        print(*measure(args.model, batch, chunk or None))
        return
    asked = [(args.small, None), (args.large, args.small), (args.large, args.small // 2)]
    asked += [(args.large, None)] if args.whole else []
    found = {pair: in_a_process(args.model, *pair, args.usual_malloc) for pair in asked}
    _, smallest, _ = found[args.small, None]
    rows = [
        [
            f"{batch} pairs" + (f", chunks of {chunk}" if chunk else " at once"),
            f"{peak:,.0f} MB",
            f"{peak / smallest:.2f}",
            f"{peak - before:,.0f} MB",
            f"{foretold:,.0f} MB",
            f"{foretold / (peak - before):.2f}",
        ]
        for (batch, chunk), (before, peak, foretold) in found.items()
    ]
    print(f"{args.model}, LoRA on the image tower, fp32, CPU")
    header = [
        "",
        "peak",
        f"{args.small} pairs = 1",
        "of it, the steps",
        "foretold",
        "foretold / was",
    ]
    print(Table(header, rows))


if __name__ == "__main__":
    main()
