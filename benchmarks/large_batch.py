"""The peak memory of a training step: a batch at once, beside a large one in chunks (GradCache).

    python benchmarks/large_batch.py [--model nano] [--small 64] [--large 1024] [--whole]

Each runs two steps in a process of its own; what is reported is the most memory that this process
held (resident set), also without what it held before its first step: Python, PyTorch, the model.
`--whole` runs the large batch at once, too; it may need more memory than there is. LoRA on the
image tower; weights other than nano's are random.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import torch

import mclip_helpers as mh
from mclip_helpers.display import Table
from mclip_helpers.speed import plain_encoders
from mclip_helpers.training.objective import Objective

MB = 1024  # ru_maxrss counts in KB


def measure(name: str, batch: int, chunk: int | None) -> tuple[float, float]:
    """Peak MB before the first step and after two, of this process."""
    clip = mh.load_model(name, pretrained=None if name == "nano" else "random", device="cpu")
    mh.inject_lora(clip.model, targets="image")
    clip.model.train()
    objective = Objective(clip, plain_encoders(clip), chunk=chunk)
    torch.manual_seed(0)
    tokens = clip.tokenizer([f"picture {i}" for i in range(batch)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB
    images = torch.rand(batch, 3, *clip.image_size)
    for _ in range(2):
        clip.model.zero_grad()
        objective.backward(images, tokens)
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB


def in_a_process(name: str, batch: int, chunk: int | None) -> tuple[float, float]:
    command = [sys.executable, __file__, "--model", name, "--child", str(batch), str(chunk or 0)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = done.stdout.split()
    return float(before), float(after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--small", type=int, default=64)
    parser.add_argument("--large", type=int, default=1024)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        batch, chunk = args.child
        print(*measure(args.model, batch, chunk or None))
        return
    asked = [(args.small, None), (args.large, args.small)]
    asked += [(args.large, None)] if args.whole else []
    found = {pair: in_a_process(args.model, *pair) for pair in asked}
    before, peak = found[args.small, None]
    rows = [
        [
            f"{batch} pairs" + (f", chunks of {chunk}" if chunk else " at once"),
            f"{its_peak:,.0f} MB",
            f"{its_peak / peak:.2f}",
            f"{(its_peak - its_before) / (peak - before):.2f}",
        ]
        for (batch, chunk), (its_before, its_peak) in found.items()
    ]
    small = f"{args.small} pairs = 1"
    print(f"{args.model}, LoRA on the image tower, fp32, CPU")
    print(Table(["", "peak", small, f"without what was there before, {small}"], rows))


if __name__ == "__main__":
    main()
