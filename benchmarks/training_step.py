"""What one training step costs, beside full fine-tuning of the same model on the same batch.

    python benchmarks/training_step.py [--model nano] [--rounds 7]

All ways take turns within one run, and each is reported as a ratio of medians against "full": the
machine may be slow or busy, the ratio is what carries over. The weights are random where they are
not nano's: a step costs the same. "PEFT's attention" is the text tower's attention adapted by
PEFT's own LoRA for nn.MultiheadAttention; "ours" is the same layers, rewritten as Linear first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import mclip_helpers as mh


def full(model: nn.Module) -> None:
    model.requires_grad_(True)


def heads(model: nn.Module) -> None:
    mh.freeze_batch_norm(model)
    for name, p in model.named_parameters():
        p.requires_grad_("head." in name or "text_projection" in name)


def peft_attention(model: nn.Module) -> None:
    mh.freeze_batch_norm(model)
    names = [n for n, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)]
    get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=names))


def our_attention(model: nn.Module) -> None:
    mh.inject_lora(model, targets=r"text\..*attn\.(q|k|v|out)_proj")


WAYS: dict[str, Callable[[nn.Module], object]] = {
    "full": full,
    "LoRA, default targets": mh.inject_lora,
    "LoRA, image targets": lambda model: mh.inject_lora(model, targets="image"),
    "heads only": heads,
    "LoRA, text attention, ours": our_attention,
    "LoRA, text attention, PEFT's": peft_attention,
}


class Step:
    """One way to train one model, ready to take a step."""

    def __init__(self, name: str, prepare: Callable[[nn.Module], object], batch: int):
        clip = mh.load_model(name, pretrained=None if name == "nano" else "random")
        self.model = clip.model
        prepare(self.model)
        self.model.train()
        self.images = torch.rand(batch, 3, *clip.image_size, device=clip.device)
        self.tokens = clip.tokenizer([f"picture {i}" for i in range(batch)]).to(clip.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-6)

    def __call__(self) -> float:
        """Take the step; returns its seconds."""
        self._wait()
        begun = time.perf_counter()
        image = self.model.encode_image(self.images)
        text = self.model.encode_text(self.tokens)
        loss = mh.contrastive_loss(image, text, self.model.logit_scale.exp())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._wait()
        return time.perf_counter() - begun

    def _wait(self) -> None:
        if self.images.is_cuda:
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["nano"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    for name in args.model:
        steps = {way: Step(name, prepare, args.batch) for way, prepare in WAYS.items()}
        for step in steps.values():
            step()
        seconds: dict[str, list[float]] = {way: [] for way in steps}
        for _ in range(args.rounds):
            for way, step in steps.items():
                seconds[way].append(step())
        rows = []
        for way, step in steps.items():
            ratios = [own / full for own, full in zip(seconds[way], seconds["full"], strict=True)]
            count = sum(p.numel() for p in step.parameters)
            rows.append(
                [
                    way,
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
                    f"{count:,}",
                    f"{12 * count / 1e6:.2f} MB",
                ]
            )
        header = ["", "time of a step, full = 1", "trained", "gradient + AdamW's averages"]
        device = next(iter(steps.values())).images.device
        print(f"{name}, batch {args.batch}, {device}, {args.rounds} rounds: median (range)")
        print(mh.draw.Table(header, rows), end="\n\n")


if __name__ == "__main__":
    main()
