"""One command that says which way of fine-tuning suits your pictures, and how sure that is.

    mclip-compare --model MobileCLIP2-S0 --pictures my-pictures

Each way (batch norm only, heads, LoRA, LoRA on the first layers, full) gets the same five tries
for its learning rate and length on a validation split, and is then trained three times and measured
on a test split. The table, a picture and the advice are written into a folder. The command can be
stopped at any time: called again, it goes on after the last run that was finished.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import draw
from ..comparison import WAYS, advice, compare, describe, plan
from ..data import folder_dataset
from ..model import load_model
from .arguments import add_kind_of_pictures, add_model, has_classes, known_pictures


def parser() -> argparse.ArgumentParser:
    summary, _, more = (__doc__ or "").split("\n\n")
    made = argparse.ArgumentParser(prog="mclip-compare", description=f"{summary} {more}")
    add = made.add_argument
    add_model(made)
    add(
        "--pictures",
        required=True,
        type=Path,
        help="a folder with metadata.csv or metadata.jsonl: file_name, text",
    )
    add_kind_of_pictures(made)
    add("--ways", nargs="+", choices=WAYS, metavar="WAY", help=f"of: {'; '.join(WAYS)}")
    add("--epochs", type=int, help="of the shorter tries (default: as many as give 110 steps)")
    add("--out", type=Path, default=Path("comparison"), help="where results go (comparison/)")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; `arguments` are those of the command line. Bad ones end it with a sentence."""
    args = parser().parse_args(arguments)
    try:
        run(args)
    except (ValueError, OSError) as error:
        sys.exit(f"mclip-compare: {error}")


def run(args: argparse.Namespace) -> None:
    pictures = folder_dataset(args.pictures)
    base = functools.partial(load_model, args.model, pretrained=args.weights)
    it = plan(
        base,
        pictures,
        known=known_pictures(args),
        replay=args.replay,
        classes=has_classes(args, pictures),
        ways=args.ways,
        epochs=args.epochs,
    )
    print(f"{base()}\n{describe(it)}\n")
    comparison = compare(it, args.out)
    report = f"{draw.ways(comparison)}\n\n{advice(comparison)}\n"
    (args.out / "report.txt").write_text(report, encoding="utf-8")
    draw.gains(comparison).savefig(args.out / "comparison.png", dpi=120, bbox_inches="tight")
    print(f"\n{report}\nwritten to {args.out / 'report.txt'} and {args.out / 'comparison.png'}")


if __name__ == "__main__":
    main()
