"""The ladder of notebook 07: a LoRA step lever by lever, beside the usual recipe and the floor.

    python benchmarks/speed.py [--model MobileCLIP2-S0] [--batch 16] [--rounds 5] [--compile]

All take turns within one run; each is reported as how many times it is as fast as the usual recipe
in the same round, median (range). Adapters of rank 8 sit on the same layers everywhere: the
attention of both towers and the head of the image tower ("default"), or the last two layers of the
image tower's last block ("late", where the text tower is frozen and the prefix long).

- *usual*: open_clip's model as it comes, PEFT's own LoRA, also for nn.MultiheadAttention;
- *ours*: attention as four Linear layers, channels_last;
- *+ fold*, *+ captions once*, *+ prefix once*: levers of this project, one after the other;
- *+ fold, compiled*: folded, and both towers by `torch.compile`, which takes minutes to compile and
  needs a C++ compiler on a CPU: with `--compile`;
- *+ bf16*: autocast, where the processor is fast at it or not;
- *floor*: the forward pass of frozen, folded towers, and the backward pass of activations alone
  through the layers that lie behind the first adapter.

Weights other than nano's are random: a step costs the same.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from dataclasses import replace

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import mclip_helpers as mh
from mclip_helpers.display import Table
from mclip_helpers.speed import (
    CaptionTable,
    Encoders,
    PrefixCache,
    cache_prefix,
    plain_encoders,
    ratio,
    take_turns,
)
from mclip_helpers.training.objective import Objective

PLACES = ("default", "late")


def load(name: str) -> mh.Clip:
    clip = mh.load_model(name, pretrained=None if name == "nano" else "random")
    return replace(clip, compute=replace(clip.compute, precision=torch.float32))


def late_layers(model: nn.Module) -> list[str]:
    """The last two layers of the image tower's last block."""
    regions = mh.regions(model)
    last = [region for region in regions if region.startswith("block")][-1]
    return regions[last][-2:]


class Step:
    """One step of an optimizer, as `objective` computes the gradient."""

    def __init__(self, objective: Objective, images: torch.Tensor, tokens: torch.Tensor):
        self.objective, self.batch = objective, (images, tokens)
        self.parameters = [p for p in objective.clip.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-6)
        objective.clip.model.train()

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.objective.backward(*self.batch)
        self.optimizer.step()


def usual(name: str, place: str, images: torch.Tensor, tokens: torch.Tensor) -> Step:
    """open_clip and PEFT, as their documentation has it."""
    clip = load(name)
    own = copy.deepcopy(clip.model).to(memory_format=torch.contiguous_format)
    if place == "default":
        # PEFT has an adapter for nn.MultiheadAttention as a whole: its parent is the target.
        names = [n for n, m in own.named_modules() if isinstance(m, nn.MultiheadAttention)]
        names += [n for n in mh.lora_targets(clip.model) if mh.tower_of(n) == "image"]
    else:
        names = late_layers(clip.model)
    mh.freeze_batch_norm(own)
    get_peft_model(own, LoraConfig(r=8, lora_alpha=16, target_modules=names))
    return Step(Objective.plain(replace(clip, model=own)), images, tokens)


def ours(
    name: str, place: str, images: torch.Tensor, tokens: torch.Tensor, *, fold: bool = False
) -> tuple[Step, mh.Clip]:
    clip = load(name)
    targets = "default" if place == "default" else late_layers(clip.model)
    if fold:
        mh.fold(clip.model)
    mh.inject_lora(clip.model, targets=targets)
    return Step(Objective.plain(clip), images, tokens), clip


def ladder(
    name: str, place: str, batch: int, folder: str, compiled: bool
) -> dict[str, Callable[[], None]]:
    clip = load(name)
    data = mh.emoji_dataset("thermal", "train").head(batch)
    images, tokens = next(iter(mh.loader(data, clip, batch)))
    steps: dict[str, Callable[[], None]] = {
        "usual recipe": usual(name, place, images, tokens),
        "ours": ours(name, place, images, tokens)[0],
    }
    steps["+ fold"], folded = ours(name, place, images, tokens, fold=True)
    if compiled:
        steps["+ fold, compiled"], its = ours(name, place, images, tokens, fold=True)
        for tower in (its.model.get_submodule("visual"), its.model.get_submodule("text")):
            tower.compile()
    encoders = plain_encoders(folded)
    if place == "late":
        encoders = replace(encoders, text=CaptionTable(folded, data.captions))
        steps["+ captions once"] = Step(Objective(folded, encoders), images, tokens)
    cache = cache_prefix(folded, data, folder)
    start = torch.stack([cache[i] for i in range(batch)])
    cached = Objective(folded, replace(encoders, image=cache.encode))
    steps["+ prefix once"] = Step(cached, start, tokens)
    half = replace(folded, compute=replace(folded.compute, precision=torch.bfloat16))
    text = plain_encoders(half).text if place == "default" else encoders.text
    in_half = Objective(
        half, Encoders(PrefixCache(half, cache.cut, cache.path, cache.digests).encode, text)
    )
    steps["+ bf16"] = Step(in_half, start, tokens)
    steps["floor (no cache)"] = floor(folded, images, tokens)
    return steps


def floor(clip: mh.Clip, images: torch.Tensor, tokens: torch.Tensor) -> Callable[[], None]:
    """Both towers without adapters, with a gradient of activations from the first adapter on."""
    model = clip.model
    layers = dict(mh.lora_layers(model))

    def step() -> None:
        hooks = [layer.register_forward_pre_hook(_wants_gradient) for layer in layers.values()]
        modes = {name: layer.disable_adapters for name, layer in layers.items()}
        try:
            for layer in layers.values():
                layer._disable_adapters = True
            loss = Objective.plain(clip).loss(images, tokens)
            loss.backward()
        finally:
            for hook in hooks:
                hook.remove()
            for name, layer in layers.items():
                layer._disable_adapters = modes[name]

    return step


def _wants_gradient(module: nn.Module, inputs: tuple) -> tuple:
    first, *others = inputs
    return (first if first.requires_grad else first.detach().requires_grad_(), *others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["nano", "MobileCLIP2-S0"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    for name in args.model:
        for place in PLACES:
            with tempfile.TemporaryDirectory() as folder:
                seconds = take_turns(
                    ladder(name, place, args.batch, folder, args.compile), args.rounds
                )
            usual_time = seconds["usual recipe"]
            rows = [[step, ratio(usual_time, own)] for step, own in seconds.items()]
            print(f"\n{name}, adapters: {place}, batch {args.batch}, {args.rounds} rounds")
            print(Table(["", "times as fast as the usual recipe"], rows))


if __name__ == "__main__":
    main()
