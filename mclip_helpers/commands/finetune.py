"""Fine-tune a MobileCLIP with LoRA on your pictures, in one process or in many.

    mclip-finetune --model MobileCLIP2-S0 --pictures my-pictures --out my-adapter
    accelerate launch --num_processes 8 -m mclip_helpers.commands.finetune --model …
    torchrun --nproc_per_node 2 -m mclip_helpers.commands.finetune --model …    (also on CPUs)

The recipe, the loop and the model card are those of the notebooks. The frozen trunk is folded, and
captions are encoded once where their tower is frozen: both change nothing but rounding. With
--cache, pictures are decoded once, and changed by the batch on the device. A test split is held out
and evaluated at the end, with the base beside it. With --checkpoint, a run that was stopped goes on
where it was, and ends with the same bits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState

from ..comparison import difference, picture_ranks, recall
from ..data import (
    Jitter,
    PictureDataset,
    decode_once,
    folder_dataset,
    hub_dataset,
    shard_dataset,
    split,
    with_replay,
)
from ..lora import fold, inject_lora, save_adapter
from ..model import choose_compute, load_model
from ..training.loop import train
from ..training.recipes import recipe
from .arguments import add_kind_of_pictures, add_model, has_classes, known_pictures

PROGRAM = "mclip-finetune"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(made)
    made.add_argument("--out", required=True, type=Path, help="the folder for the adapter")

    data = made.add_argument_group("pictures (one of the first three)")
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument("--pictures", type=Path, help="a folder with metadata.csv or .jsonl")
    source.add_argument("--hub", help="a dataset of the Hugging Face hub, owner/name")
    source.add_argument("--shards", help="WebDataset, as in 'train-{000..012}.tar'")
    data.add_argument("--columns", nargs=2, default=("image", "text"), metavar=("IMAGE", "TEXT"))
    add_kind_of_pictures(data)
    data.add_argument("--no-augment", action="store_true", help="show each picture as it is")

    usual = "(default: the model's recipe)"
    how = made.add_argument_group("training")
    how.add_argument("--targets", help=f"first, image, text, all, default, or a pattern {usual}")
    how.add_argument("--rank", type=int, help=usual)
    how.add_argument("--alpha", type=float, help=usual)
    how.add_argument("--epochs", type=int, help=usual)
    how.add_argument("--lr", type=float, help=usual)
    how.add_argument("--batch-size", type=int, help=f"of all processes together {usual}")
    how.add_argument("--chunk", type=int, help="pairs at a time through the towers (GradCache)")
    how.add_argument("--cache", type=Path, help="a folder: decode each picture once, and keep it")
    how.add_argument("--seed", type=int, default=0)
    how.add_argument("--checkpoint", type=Path, help="a file on a disk that all processes see")
    how.add_argument("--merged", action="store_true", help="write the merged model, too")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; `arguments` are those of the command line. Bad ones end it with a sentence."""
    args = parser().parse_args(arguments)
    # Starts the process group that `accelerate launch` or torchrun has prepared.
    state = PartialState(cpu=choose_compute().device.type == "cpu")
    try:
        run(args, state)
    except (ValueError, OSError) as error:
        sys.exit(f"{PROGRAM}: {error}")
    finally:
        state.destroy_process_group()


def run(args: argparse.Namespace, state: PartialState) -> None:
    several = state.num_processes > 1
    clip = load_model(args.model, pretrained=args.weights, device=state.device if several else None)
    pictures = _pictures(args)
    classes = has_classes(args, pictures)
    parts = split(pictures, classes=classes)
    tested = {"test split": parts["test"]}
    learn, val, known = parts["train"], parts["val"], known_pictures(args)
    if known is not None:
        known_parts = split(known)
        learn = with_replay(learn, known_parts["train"], args.replay)
        tested["known pictures, test split"] = known_parts["test"]
    elif args.replay:
        raise ValueError(f"--replay {args.replay:g} needs --known: pictures to draw it from")
    usual = recipe(clip, learn)
    chosen = replace(
        usual,
        **{
            name: value
            for name in ("targets", "rank", "alpha", "batch_size", "epochs")
            if (value := getattr(args, name)) is not None
        },
    )
    lr = usual.lr["LoRA"] if args.lr is None else args.lr
    before = {}
    if state.is_main_process:
        before = {name: picture_ranks(clip, data, shown=False) for name, data in tested.items()}
    fold(clip.model)  # exact, and what is saved is unfolded again
    torch.manual_seed(args.seed)
    lora_model = inject_lora(clip.model, chosen.rank, chosen.alpha, targets=chosen.targets)
    if state.is_main_process:
        trained, total = lora_model.get_nb_trainable_parameters()
        print(f"{clip} · {state.num_processes} processes" if several else clip)
        print(f"{len(learn)} pictures to learn from, {len(val)} to choose with, ", end="")
        print(f"{len(parts['test'])} to measure with; {trained:,} of {total:,} parameters trained")
    jitter = None if args.no_augment else Jitter()
    if args.cache is not None:
        with state.local_main_process_first():  # each machine has its own file
            learn, val = (decode_once(part, clip, args.cache) for part in (learn, val))
    train(
        clip,
        learn,
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        lr=lr,
        seed=args.seed,
        augment=jitter if args.cache is None else None,
        augment_batches=jitter.batch if jitter is not None and args.cache is not None else None,
        classes=classes,
        chunk=args.chunk,
        evaluate_on={"val": val},
        checkpoint=args.checkpoint,
    )
    if not state.is_main_process:
        return
    metrics = {}
    for name, data in tested.items():
        now = picture_ranks(clip, data, shown=False)
        change = difference([now], [before[name]])
        shares = recall(before[name]), recall(now)
        metrics[f"R@1, picture to text, {name}"] = (*shares, change.low, change.high)
        print(f"R@1, {name}: {shares[0]:.1%} → {shares[1]:.1%}, {change}")
    about = f"{len(learn)} pictures. {learn.credit}".strip()
    folder = save_adapter(lora_model, args.out, data=about, metrics=metrics, merged=args.merged)
    print(f"written to {folder}")


def _pictures(args: argparse.Namespace) -> PictureDataset:
    if args.pictures is not None:
        return folder_dataset(args.pictures)
    if args.shards is not None:
        return shard_dataset(args.shards)
    image, text = args.columns
    return hub_dataset(args.hub, image=image, text=text)


if __name__ == "__main__":
    main()
