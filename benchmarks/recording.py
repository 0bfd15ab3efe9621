"""What it costs to record a training step, beside the same step without a recorder.

    python benchmarks/recording.py [--model nano] [--batch 16 64] [--rounds 15]

The ways take turns within one run, and each is reported as a ratio of medians against the plain
step (forward and backward, no optimizer). Beside the recorder stands what torchviz needs for the
same graph: `make_dot`, which writes down the graph as it stands, without layout. Weights are random
where they are not nano's: a step costs the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torchviz import make_dot

import mclip_helpers as mh


class Step:
    """One training step of a model with LoRA, taken in three ways."""

    def __init__(self, name: str, batch: int):
        clip = mh.load_model(name, pretrained=None if name == "nano" else "random")
        self.model, self.peft = clip.model, mh.inject_lora(clip.model)
        self.images = torch.rand(batch, 3, *clip.image_size, device=clip.device)
        self.tokens = clip.tokenizer([f"picture {i}" for i in range(batch)]).to(clip.device)
        self.named = dict(self.peft.named_parameters())
        self.nodes = 0

    def loss(self) -> torch.Tensor:
        self.peft.zero_grad()
        image = self.model.encode_image(self.images)
        text = self.model.encode_text(self.tokens)
        return mh.contrastive_loss(image, text, self.model.logit_scale.exp())

    def plain(self) -> None:
        self.loss().backward()

    def recorded(self) -> None:
        with mh.trace(self.peft) as tape:
            self.loss().backward()
        self.nodes = len(tape.graph.nodes)

    def with_make_dot(self) -> None:
        loss = self.loss()
        make_dot(loss, params=self.named)
        loss.backward()

    def seconds(self, way: Callable[[], None]) -> float:
        self._wait()
        begun = time.perf_counter()
        way()
        self._wait()
        return time.perf_counter() - begun

    def _wait(self) -> None:
        if self.images.is_cuda:
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["nano"])
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    rows = []
    for name in args.model:
        for batch in args.batch:
            step = Step(name, batch)
            ways = [step.plain, step.recorded, step.with_make_dot]
            for way in ways:
                way()
            found = [[step.seconds(way) for way in ways] for _ in range(args.rounds)]
            row = [name, batch, step.nodes]
            for i in (1, 2):
                ratios = [seconds[i] / seconds[0] for seconds in found]
                spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
                row.append(f"{statistics.median(ratios):.2f} ({spread})")
            rows.append(row)
    header = ["model", "batch", "nodes", "recorded, plain = 1", "make_dot, plain = 1"]
    device = step.images.device
    print(f"{device}, {torch.get_num_threads()} threads, {args.rounds} rounds: median (range)")
    print(mh.draw.Table(header, rows))


if __name__ == "__main__":
    main()
