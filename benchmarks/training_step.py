"""What one training step costs, beside full fine-tuning of the same model on the same batch.

    python benchmarks/training_step.py [--model nano] [--rounds 7]

All recipes take turns within one run, and each is reported as a ratio of medians against "full":
the machine may be slow or busy, but the ratio carries over. The weights of models other than nano
are random: a step costs the same. In "text attention, PEFT's" the text tower's attention is adapted
by PEFT's own LoRA for nn.MultiheadAttention; in "text attention, ours" the same layers are first
rewritten as Linear.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import mclip_helpers as mh
from mclip_helpers.display import Table
from mclip_helpers.speed import ratio, take_turns


class NotPossible(Exception):
    """This recipe can't be used for this model; the message says why."""


def full(model: nn.Module) -> None:
    model.requires_grad_(True)


def heads(model: nn.Module) -> None:
    mh.freeze_batch_norm(model)
    for name, p in model.named_parameters():
        p.requires_grad_("head." in name or "text_projection" in name)


def peft_attention(model: nn.Module) -> None:
    """By its class, for once: PEFT's adapter for attention is for this class alone."""
    names = [n for n, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)]
    names = [name for name in names if mh.tower_of(name) == "text"]
    if not names:
        raise NotPossible("the text tower has no nn.MultiheadAttention, and PEFT adapts no other")
    mh.freeze_batch_norm(model)
    get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=names))


def our_attention(model: nn.Module) -> None:
    mh.inject_lora(model, targets=r"text\..*attn\.(q|k|v|out)_proj")


RECIPES: dict[str, Callable[[nn.Module], object]] = {
    "full": full,
    "LoRA, default targets": mh.inject_lora,
    "LoRA, image targets": lambda model: mh.inject_lora(model, targets="image"),
    "heads only": heads,
    "LoRA, text attention, ours": our_attention,
    "LoRA, text attention, PEFT's": peft_attention,
}


class Step:
    """A model prepared by one recipe, ready to take a step of training."""

    def __init__(self, name: str, prepare: Callable[[nn.Module], object], batch: int):
        clip = mh.load_model(name, pretrained=None if name == "nano" else "random")
        self.model = clip.model
        prepare(self.model)
        self.model.train()
        self.images = torch.rand(batch, 3, *clip.image_size, device=clip.device)
        self.tokens = clip.tokenizer([f"picture {i}" for i in range(batch)]).to(clip.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-6)

    def __call__(self) -> None:
        image = self.model.encode_image(self.images)
        text = self.model.encode_text(self.tokens)
        loss = mh.contrastive_loss(image, text, self.model.logit_scale.exp())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def steps_of(name: str, batch: int) -> tuple[dict[str, Step], list[str]]:
    """A step for each recipe that is possible, and a sentence for each that is not."""
    steps, left_out = {}, []
    for recipe, prepare in RECIPES.items():
        try:
            steps[recipe] = Step(name, prepare, batch)
        except NotPossible as error:
            left_out.append(f"left out: {recipe}: {error}")
    return steps, left_out


def table(steps: dict[str, Step], seconds: dict[str, list[float]]) -> Table:
    rows = []
    for recipe, step in steps.items():
        count = sum(p.numel() for p in step.parameters)
        rows.append(
            [
                recipe,
                ratio(seconds[recipe], seconds["full"]),
                f"{count:,}",
                f"{12 * count / 1e6:.2f} MB",
            ]
        )
    return Table(["", "time of a step, full = 1", "trained", "gradient + AdamW's averages"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["nano"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    for name in args.model:
        steps, left_out = steps_of(name, args.batch)
        seconds = take_turns(steps, args.rounds)
        device = next(iter(steps.values())).images.device
        print(f"{name}, batch {args.batch}, {device}, {args.rounds} rounds: median (range)")
        print(table(steps, seconds), *left_out, sep="\n", end="\n\n")


if __name__ == "__main__":
    main()
