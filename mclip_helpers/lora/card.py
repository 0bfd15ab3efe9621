"""The model card of an adapter: what you would ask of somebody else's before you use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from huggingface_hub import ModelCardData
from peft import LoraConfig

from ..model.clip import NANO, RANDOM
from ..names import tower_of

AMLR = "apple-amlr"  # as the hub calls Apple's Machine Learning Research Model licence
NOT_GIVEN = "Not given."


def is_apples(base: str) -> bool:
    """Whether `base` ("name/weights") has weights that are under Apple's research licence."""
    name, _, weights = base.partition("/")
    return name.startswith("MobileCLIP") and weights != RANDOM


def apple_notice(base: str) -> str:
    """What must lie beside a derivative of Apple's weights: their notice, and what was changed."""
    name, _, weights = base.partition("/")
    return (
        "Apple Machine Learning Research Model is licensed under the Apple Machine Learning "
        "Research Model License Agreement.\n\n"
        f"What was changed: LoRA adapters were trained for {name} (weights {weights}). The files "
        "in this folder are those adapters; where there is a merged model, the adapters were added "
        "to Apple's weights.\n"
    )


def write(
    base: str,
    repository: str | None,
    config: LoraConfig,
    layers: Sequence[str],
    data: str,
    metrics: Mapping[str, tuple[float, float]],
    merged: bool,
) -> str:
    """The text of README.md: a head for machines, in YAML, and the card for people.

    `base` is "name/weights", `repository` where the hub has them; `layers` are the names of the
    adapted layers, `metrics` shares (0…1) before and after. What was not given is not made up.
    """
    name, _, weights = base.partition("/")
    head = ModelCardData(
        base_model=repository,
        base_model_relation="adapter" if repository else None,
        library_name="peft",
        pipeline_tag="zero-shot-image-classification",
        license=_licence_id(base),
        tags=["clip", "lora", "open_clip", *(["mobileclip"] if "MobileCLIP" in name else [])],
    )
    towers = Counter(tower_of(layer) for layer in layers)
    where = f"{towers['image']} layers of the image tower, {towers['text']} of the text tower"
    listed = "\n".join(f"- `{layer}`" for layer in layers)
    on_hub = (
        f", [{repository}](https://huggingface.co/{repository}) on the hub" if repository else ""
    )
    return f"""---
{head.to_yaml().strip()}
---

# A LoRA adapter for {name}

A small correction to the weights of a CLIP model. It is made for **{name}**, weights `{weights}`\
{on_hub}, and fits no other: the fingerprint of that base is in `base_model.json`.

## Trained with

{data or NOT_GIVEN}

## Measured

{_table(metrics)}

Rank {config.r}, alpha {config.lora_alpha:g}, dropout {config.lora_dropout:g}, on {where}.

<details><summary>Which layers</summary>

{listed}

</details>

## How to load it

With open_clip alone, merged into the base: a plain model, as fast as the base.

{_plain(name, merged)}

With the package that made it, as an adapter that can be switched off:

```python
import mclip_helpers as mh

clip = mh.load_model("{name}"{"" if name == NANO else f', pretrained="{weights}"'})
peft = mh.load_adapter(clip.model, ".")  # the folder of this file
```

(`load_adapter` checks the base, and splits the text tower's attention into the Linear layers that
adapters need. PEFT's own `PeftModel.from_pretrained` does neither.)

## Limits

It inherits what its base can't do and what its base has wrong, and was judged on no more than the
numbers above.

## Licence

{_licence(base)}
"""


def _table(metrics: Mapping[str, tuple[float, float]]) -> str:
    if not metrics:
        return NOT_GIVEN
    rows = [f"| {what} | {was:.1%} | {now:.1%} |" for what, (was, now) in metrics.items()]
    return "\n".join(["| | before | after |", "|---|---|---|", *rows])


def _plain(name: str, merged: bool) -> str:
    if not merged:
        return (
            "This folder holds the adapter without the merged model. `mh.save_adapter(peft, path, "
            "merged=True)` writes both."
        )
    registered = "import mclip_helpers  # knows nano's architecture\n" if name == NANO else ""
    return f"""```python
import open_clip
import torch
from PIL import Image
{registered}
folder = "local-dir:merged"  # beside this file
model, _, preprocess = open_clip.create_model_and_transforms(folder)
tokenizer = open_clip.get_tokenizer(folder)
model.eval()

texts = ["a cat", "a dog"]
with torch.no_grad():
    picture = preprocess(Image.open("picture.png").convert("RGB")).unsqueeze(0)
    image_features = model.encode_image(picture, normalize=True)
    text_features = model.encode_text(tokenizer(texts), normalize=True)
    shares = (model.logit_scale.exp() * image_features @ text_features.T).softmax(dim=-1)
print(dict(zip(texts, shares[0].tolist())))
```"""


def _licence_id(base: str) -> str | None:
    if is_apples(base):
        return AMLR
    return "apache-2.0" if base.startswith(f"{NANO}/") else None


def _licence(base: str) -> str:
    name, _, weights = base.partition("/")
    if is_apples(base):
        return (
            "Apple's weights are under the Apple Machine Learning Research Model licence, and "
            "this adapter is a derivative: **for research, not for products**. Whoever passes it "
            "on passes on the licence with it: a copy of the agreement (it lies beside the base's "
            "weights on the hub), the file `NOTICE` of this folder, and what was changed."
        )
    if name == NANO:
        return "Apache-2.0, as its base. The pictures that it was trained with have their own."
    if weights == RANDOM:
        return "The base has random weights: this adapter is for tests, and of no use to others."
    return "That of the base, whose own card says which."
