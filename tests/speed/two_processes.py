"""What one of two processes does in test_processes.py; each writes what it found into a file."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from small_batches import in_float64, small_batch

import mclip_helpers as mh
from mclip_helpers.speed import Encoders, share
from mclip_helpers.training.objective import Objective

EMOJI = 24


def gradients(classes: bool, chunk: int | None) -> dict[str, torch.Tensor]:
    """The loss and gradients of a step, of this process's part of the batch."""
    clip = in_float64(mh.load_model("nano", device="cpu"))
    encoders = Encoders(clip.model.encode_image, clip.model.encode_text)
    images, tokens = small_batch(clip)
    if classes:
        tokens[-1] = tokens[0]  # of one class, and in two processes
    part, parts = share()
    images, tokens = (x.chunk(parts)[part] for x in (images, tokens))
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
    return {
        "plain": gradients(classes=False, chunk=None),
        "chunks": gradients(classes=False, chunk=3),
        "classes": gradients(classes=True, chunk=None),
        "run": trained(1),
    }


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
