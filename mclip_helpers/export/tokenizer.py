"""The tokenizer beside the graphs: its vocabulary, and what a program must know to use it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import _clean_lower, default_bpe

KIND = "clip-bpe"
# What `_clean_lower` does to a text before it is split, in this order.
CLEANING = ("ftfy", "html_unescape", "html_unescape", "whitespace", "lower")


def describe_tokenizer(tokenizer: Any, context_length: int) -> dict[str, Any]:
    """What `model.json` says under "tokenizer". ValueError unless it is open_clip's own BPE.

    Token ids: those of the text between start and end, cut to the context (the last one is then the
    end), filled up with `pad_id`.
    """
    if type(tokenizer) is not open_clip.SimpleTokenizer:
        raise ValueError(
            f"the tokenizer is a {type(tokenizer).__name__}; only open_clip's SimpleTokenizer, as "
            f"all MobileCLIPs have it, can be written beside the graphs"
        )
    usual = tokenizer.clean_fn is _clean_lower and tokenizer.reduction_fn is None
    if not usual or tokenizer.context_length != context_length:
        raise ValueError(
            f"this tokenizer cleans or cuts texts in its own way, or to {tokenizer.context_length} "
            f"tokens; export the one that load_model returned"
        )
    start, end = tokenizer.sot_token_id, tokenizer.eot_token_id
    return {
        "kind": KIND,
        "file": Path(default_bpe()).name,
        "vocab_size": tokenizer.vocab_size,
        "pattern": tokenizer.pat.pattern,
        "ignore_case": True,
        "cleaning": list(CLEANING),
        "special_tokens": {tokenizer.decoder[i]: i for i in tokenizer.all_special_ids},
        "start_id": start,
        "end_id": end,
        "pad_id": 0,
        "context_length": context_length,
    }


def write_tokenizer(folder: Path) -> None:
    """Copy the vocabulary from the installed open_clip."""
    shutil.copyfile(default_bpe(), folder / Path(default_bpe()).name)


def read_tokenizer(folder: Path, notes: Mapping[str, Any]) -> open_clip.SimpleTokenizer:
    """The tokenizer that `describe_tokenizer` described. ValueError for another kind."""
    if notes["kind"] != KIND:
        raise ValueError(
            f"the tokenizer in {folder} is of the kind {notes['kind']!r}, not {KIND!r}"
        )
    return open_clip.SimpleTokenizer(
        str(folder / notes["file"]), context_length=notes["context_length"]
    )
