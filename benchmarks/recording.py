"""What it costs to record a training step, beside the same step without a recorder.

    python benchmarks/recording.py [--model nano] [--batch 16 64] [--rounds 15] [--threads 1]

The ways take turns within one run, and each is reported as a ratio to the plain step of its round
(forward and backward, no optimizer), in two kinds of time: *elapsed*, by the clock on the wall, and
*processor*, that of all threads of this process. The recorder works in one thread, so the more
threads a step has, the more it costs by the clock. Beside it stands what torchviz needs for the
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

KINDS = ("elapsed", "processor")


class Step:
    """One training step of a model with LoRA, taken in three ways."""

    def __init__(self, name: str, batch: int):
        clip = mh.load_model(name, pretrained=None if name == "nano" else "random")
        self.model, self.lora_model = clip.model, mh.inject_lora(clip.model)
        self.images = torch.rand(batch, 3, *clip.image_size, device=clip.device)
        self.tokens = clip.tokenizer([f"picture {i}" for i in range(batch)]).to(clip.device)
        self.named = dict(self.lora_model.named_parameters())
        self.nodes = 0

    def loss(self) -> torch.Tensor:
        self.lora_model.zero_grad()
        image = self.model.encode_image(self.images)
        text = self.model.encode_text(self.tokens)
        return mh.contrastive_loss(image, text, self.model.logit_scale.exp())

    def plain(self) -> None:
        self.loss().backward()

    def recorded(self) -> None:
        with mh.trace(self.lora_model) as tape:
            self.loss().backward()
        self.nodes = len(tape.graph.nodes)

    def with_make_dot(self) -> None:
        loss = self.loss()
        make_dot(loss, params=self.named)
        loss.backward()

    def seconds(self, way: Callable[[], None]) -> tuple[float, float]:
        """How long it takes: elapsed time, and processor time."""
        self._wait()
        begun = time.perf_counter(), time.process_time()
        way()
        self._wait()
        return time.perf_counter() - begun[0], time.process_time() - begun[1]

    def _wait(self) -> None:
        if self.images.is_cuda:
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["nano"])
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, help="PyTorch's own choice by default")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = []
    for name in args.model:
        for batch in args.batch:
            step = Step(name, batch)
            ways = [step.plain, step.recorded, step.with_make_dot]
            for way in ways:
                way()
            rounds = [[step.seconds(way) for way in ways] for _ in range(args.rounds)]
            row: list[object] = [name, batch, step.nodes]
            for way in (1, 2):
                for kind in range(len(KINDS)):
                    ratios = [seconds[way][kind] / seconds[0][kind] for seconds in rounds]
                    spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
                    row.append(f"{statistics.median(ratios):.2f} ({spread})")
            rows.append(row)
    kinds = [f"{way}, {kind}" for way in ("recorded", "make_dot") for kind in KINDS]
    header = ["model", "batch", "nodes", *kinds]
    device = step.images.device
    print(f"{device}, {torch.get_num_threads()} threads, {args.rounds} rounds")
    print("ratios to the plain step: median (range)")
    print(mh.draw.Table(header, rows))


if __name__ == "__main__":
    main()
