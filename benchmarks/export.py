"""What shipping is worth in time: PyTorch as trained and folded, ONNX Runtime in 32, 16 and 8 bits.

    python benchmarks/export.py [--model nano] [--batch 1 16] [--rounds 9] [--threads 1]

The image tower, from pixels to features. All take turns within one run, with as many threads each;
each is reported as how many times it is as fast as PyTorch with the model as trained, in the same
round, median (range). `nano` has its adapter for thermal pictures; beside the times stands R@1,
picture to text, of the 823 thermal pictures of the test split. Other models have random weights and
fresh adapters: a picture costs the same, and there is no R@1.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import tempfile
from pathlib import Path

import torch

import mclip_helpers as mh
from mclip_helpers.display import Table
from mclip_helpers.export import (
    Chain,
    OnnxClip,
    Quantizer,
    TorchStage,
    costliest,
    folded_copy,
    halved,
    layer_costs,
    write_variant,
)
from mclip_helpers.export.stages import Stage
from mclip_helpers.lora import batch_norms, merged_copy
from mclip_helpers.speed import ratio, take_turns

LOOK = "thermal"


def load(name: str) -> mh.Clip:
    if name != "nano":
        clip = mh.load_model(name, pretrained="random", device="cpu")
        for norm in batch_norms(clip.model):  # without them, activations are nearly constant
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 2)
        mh.inject_lora(clip.model, targets="image").eval()
        return clip
    clip = mh.load_model(name, device="cpu")
    mh.load_adapter(clip.model, mh.data_folder() / "adapters" / LOOK)
    return clip


def stages(name: str, folder: Path) -> list[Stage]:
    """The model at each point of the chain, the one as trained first."""
    clip = load(name)
    few = 128 if name == "nano" else 8
    onnx = mh.export_onnx(clip, folder / "fp32", mh.emoji_dataset(LOOK, "val").head(few))
    onnx.name = "ONNX Runtime, fp32"
    folded = dataclasses.replace(clip, model=folded_copy(merged_copy(clip.model)))
    quantizer = Quantizer(onnx, mh.emoji_dataset(LOOK, "train").head(few))
    # The costs of layers say nothing about a random model.
    keep = costliest(layer_costs(quantizer)) if name == "nano" else []
    variants: list[Stage] = []
    for precision, graphs, left in (
        ("fp16", halved(onnx), []),
        ("int8", quantizer.graphs(keep), keep),
    ):
        place = folder / precision
        place.mkdir()
        write_variant(place, onnx, graphs, precision, left)
        variants.append(OnnxClip(place, f"ONNX Runtime, {precision}"))
    return [
        TorchStage("PyTorch, as trained", clip),
        TorchStage("PyTorch, folded", folded),
        onnx,
        *variants,
    ]


def report(name: str, batches: list[int], rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        compared = stages(name, Path(folder))
        data = mh.emoji_dataset(LOOK, "test")
        pictures = [pair.load() for pair in data.head(max(batches)).pairs]
        pixels = compared[0].inputs("image", pictures)
        columns = []
        for batch in batches:
            steps = {
                stage.name: functools.partial(stage.features, "image", pixels[:batch])
                for stage in compared
            }
            seconds = take_turns(steps, rounds)
            columns.append([ratio(seconds[compared[0].name], own) for own in seconds.values()])
        r1 = ["–"] * len(compared)
        if name == "nano":
            chain = Chain(compared[0], data)
            r1 = [f"{chain.compare(stage).r1_after:.1%}" for stage in compared]
        rows = [
            [stage.name, *times, f"{stage.size / 1e6:.1f}", share]
            for stage, *times, share in zip(compared, *columns, r1, strict=True)
        ]
    head = [f"times as fast, {b} picture{'s' if b > 1 else ''}" for b in batches]
    print(f"\n{name}, {torch.get_num_threads()} threads, {rounds} rounds")
    print(Table(["", *head, "MB", f"R@1, {LOOK}"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["nano", "MobileCLIP2-S0"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.model:
        report(name, args.batch, args.rounds)


if __name__ == "__main__":
    main()
