"""What one of two processes does in test_processes.py; each writes what it found into a file."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from small_batches import small_batch
from torch import nn

import mclip_helpers as mh
from mclip_helpers.speed import Encoders, share
from mclip_helpers.training.objective import Objective

EMOJI = 24


def double_nano() -> mh.Clip:
    """`nano` in float64, with adapters that do something and a trained temperature."""
    clip = mh.load_model("nano", device="cpu")
    torch.manual_seed(0)
    peft = mh.inject_lora(clip.model, rank=2, targets="all")
    clip.model.double()
    for _, layer in mh.lora_layers(peft):
        nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    clip.model.logit_scale.requires_grad_(True)
    return clip


def gradients(classes: bool, chunk: int | None) -> dict[str, torch.Tensor]:
    """The loss and gradients of a step, of this process's part of the batch."""
    clip = double_nano()
    encoders = Encoders(clip.model.encode_image, clip.model.encode_text)
    part, parts = share()
    images, tokens = (x.chunk(parts)[part] for x in small_batch(clip))
    if classes:
        tokens = tokens[:1].expand_as(tokens) if part == 0 else tokens
    loss = Objective(clip, encoders, classes, chunk).backward(images, tokens)
    return {"loss": loss} | {n: p.grad for n, p in clip.model.named_parameters() if p.requires_grad}


def trained(seed: int) -> dict[str, torch.Tensor]:
    """What a short run leaves; adapters begin as `seed` says."""
    clip = mh.load_model("nano", device="cpu")
    torch.manual_seed(seed)
    mh.inject_lora(clip.model, rank=2, targets="image")
    data = mh.emoji_dataset("openmoji", "val").head(EMOJI)
    mh.train(clip, data, epochs=2, batch_size=8, lr=1e-3, progress=False)
    return {n: p.detach() for n, p in clip.model.named_parameters() if p.requires_grad}


def alone() -> dict[str, dict[str, torch.Tensor]]:
    """What each question has for an answer in one process."""
    return {"plain": gradients(False, None), "chunks": gradients(False, 3), "run": trained(1)}


def main(rank: int, folder: Path) -> None:
    store = (folder / "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    torch.set_num_threads(1)
    found = alone()
    try:
        trained(seed=rank)
    except ValueError as error:
        found["refused"] = {"message": str(error)}
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
