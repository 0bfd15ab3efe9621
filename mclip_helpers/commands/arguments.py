"""Arguments that several commands take, and what they stand for."""

from __future__ import annotations

import argparse

from ..comparison import are_classes
from ..data import PictureDataset, emoji_dataset, folder_dataset

EMOJI = "twemoji"


def add_model(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--model", required=True, help="nano, MobileCLIP2-S0, … (mclip_helpers.mobileclip_names)"
    )
    parser.add_argument(
        "--weights", help="of the model, if not its usual ones; 'random' to try the mechanics"
    )


def add_kind_of_pictures(parser: argparse._ActionsContainer) -> None:
    """What is known beside the new pictures, and what their captions are."""
    parser.add_argument(
        "--known",
        help="pictures of what is not to be forgotten: a folder like that of --pictures, or "
        "'twemoji' (what nano knows)",
    )
    parser.add_argument(
        "--replay",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="the share of known pictures in what is learned from, such as 0.5 (default: 0)",
    )
    parser.add_argument(
        "--classes",
        choices=["auto", "yes", "no"],
        default="auto",
        help="whether captions are names of classes, which many pictures share",
    )


def known_pictures(args: argparse.Namespace) -> PictureDataset | None:
    if args.known is None:
        return None
    return emoji_dataset(EMOJI) if args.known == EMOJI else folder_dataset(args.known)


def has_classes(args: argparse.Namespace, pictures: PictureDataset) -> bool:
    return are_classes(pictures) if args.classes == "auto" else args.classes == "yes"
