"""The model card says what it was given, and its own lines of code work for other people."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
import torch
import yaml
from conftest import fresh
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftConfig, PeftModel
from torch import nn

import mclip_helpers as mh
import rehearse
from mclip_helpers.lora import card

METRICS = {"R@1, picture to text, of 823 emoji": (0.267, 0.3125)}
DATA = "718 drawings of emoji. OpenMoji pictures: © the OpenMoji project, CC-BY-SA 4.0"
# Nobody else has this package: importing it fails, as it would there.
WITHOUT_US = "import sys; sys.modules['mclip_helpers'] = None\n"


def adapted(clip: mh.Clip, targets: str = "default") -> PeftModel:
    """Adapters that do something, and a temperature of their own."""
    torch.manual_seed(0)
    lora_model = mh.inject_lora(clip.model, rank=4, targets=targets)
    for _, layer in mh.lora_layers(lora_model):
        nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    with torch.no_grad():
        clip.model.logit_scale.fill_(2.0)
    return lora_model.eval()


def card_in(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def snippets(text: str) -> list[str]:
    """The blocks of Python in a card: without this package, and with it."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run(code: str, folder: Path, **environment: str) -> str:
    """Run `code` in `folder` as a new process; what it printed last."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


@dataclasses.dataclass(frozen=True)
class Given:
    """An adapter for MobileCLIP2-S0, given away with its merged model."""

    folder: Path
    cache: Path
    shares: list[float]
    picture: Path


@pytest.fixture(scope="module")
def apple(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """Random weights stand in for Apple's, in a hub cache of their own."""
    cache, folder = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("given") / "adapter"
    rehearse.fill_cache(cache, "MobileCLIP2-S0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        clip = mh.load_model("MobileCLIP2-S0", cache_dir=cache, device="cpu")
    lora_model = adapted(clip)
    mh.save_adapter(lora_model, folder, data=DATA, metrics=METRICS, merged=True)
    ((picture, _),) = mh.emoji_dataset("twemoji").find("cat face")
    picture.save(folder / "picture.png")
    shares = mh.zero_shot(clip, [picture], ["a cat", "a dog"])[0].tolist()
    return Given(folder, cache, shares, folder / "picture.png")


def test_the_cards_lines_for_open_clip_alone_give_the_adapted_models_answer(apple: Given):
    plain, _ = snippets(card_in(apple.folder))
    printed = run(WITHOUT_US + plain, apple.folder)
    said = {k: float(v) for k, v in re.findall(r"'(a \w+)': ([\d.e-]+)", printed)}
    assert list(said) == ["a cat", "a dog"]
    assert list(said.values()) == pytest.approx(apple.shares, abs=1e-5)
    assert abs(apple.shares[0] - apple.shares[1]) > 1e-4  # else any model would pass


def test_the_cards_lines_for_this_package_give_the_same_answer(apple: Given):
    _, ours = snippets(card_in(apple.folder))
    ask = """
from PIL import Image
picture = Image.open("picture.png").convert("RGB")
print(mh.zero_shot(clip, [picture], ["a cat", "a dog"])[0].tolist())
"""
    printed = run(ours + ask, apple.folder, HF_HUB_CACHE=str(apple.cache))
    assert json.loads(printed) == pytest.approx(apple.shares, abs=1e-6)


def test_nanos_card_says_what_plain_open_clip_lacks_and_its_lines_work(tmp_path: Path):
    clip = fresh("nano")
    folder = mh.save_adapter(adapted(clip, "all"), tmp_path / "adapter", merged=True)
    ((picture, _),) = mh.emoji_dataset("twemoji").find("cat face")
    picture.save(folder / "picture.png")
    plain, _ = snippets(card_in(folder))
    assert "import mclip_helpers  #" in plain
    printed = run(plain, folder)
    expected = mh.zero_shot(clip, [picture], ["a cat", "a dog"])[0].tolist()
    said = [float(share) for share in re.findall(r": ([\d.e-]+)", printed)]
    assert said == pytest.approx(expected, abs=1e-5)
    assert not (folder / "NOTICE").exists()


def test_the_head_of_the_card_is_what_the_hub_reads(apple: Given):
    text = card_in(apple.folder)
    head = yaml.safe_load(text.split("---")[1])
    assert head["base_model"] == "timm/MobileCLIP2-S0-OpenCLIP"
    assert head["base_model_relation"] == "adapter"
    assert head["library_name"] == "peft"
    assert head["license"] == "apple-amlr"
    assert head["pipeline_tag"] == "zero-shot-image-classification"
    assert {"lora", "mobileclip", "open_clip"} <= set(head["tags"])
    assert ModelCard(text).data.license == "apple-amlr"


def test_peft_finds_the_base_by_its_name_on_the_hub(apple: Given):
    config = PeftConfig.from_pretrained(apple.folder)
    assert config.base_model_name_or_path == "timm/MobileCLIP2-S0-OpenCLIP"
    assert (config.r, config.lora_alpha, config.peft_type.value) == (4, 16, "LORA")


def test_the_card_says_what_it_was_given(apple: Given):
    text = card_in(apple.folder)
    assert DATA in text
    assert "| R@1, picture to text, of 823 emoji | 26.7% | 31.2% |" in text
    assert "5 layers of the image tower, 48 of the text tower" in text
    assert "`text.transformer.resblocks.0.attn.q_proj`" in text


def test_a_derivative_of_apples_weights_carries_their_notice_and_says_what_changed(apple: Given):
    for folder in (apple.folder, apple.folder / "merged"):
        notice = (folder / "NOTICE").read_text(encoding="utf-8")
        assert notice.startswith(
            "Apple Machine Learning Research Model is licensed under the Apple Machine Learning "
            "Research Model License Agreement."
        )
        assert "LoRA adapters were trained for MobileCLIP2-S0" in notice
    text = card_in(apple.folder)
    assert "for research, not for products" in text and "a copy of the agreement" in text


# ----------------------------------------------------------------------------- the text of the card


def written(name: str = "nano", weights: str = "nano", **changes) -> str:
    """A card for which little was given, but for `changes`."""
    given = {
        "repository": None,
        "config": LoraConfig(r=4, lora_alpha=16, lora_dropout=0.1),
        "layers": ["visual.trunk.head.fc"],
        "trained_with": "",
        "metrics": {},
        "merged": False,
    }
    return card.write_card(name=name, weights=weights, **(given | changes))


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n\n")[2].partition("\n\n## ")[0].rstrip("\n")


def test_an_interval_stands_beside_the_change_that_it_is_of():
    text = written(metrics={"R@1, new": (0.25, 0.5, 0.2125, 0.3), "R@1, old": (0.9, 0.8)})
    assert "| | before | after | change in points, interval of 95 % |" in text
    assert "| R@1, new | 25.0% | 50.0% | +21.2 to +30.0 |" in text
    assert "| R@1, old | 90.0% | 80.0% | not given |" in text
    assert "interval" not in written(metrics={"R@1, old": (0.9, 0.8)})


def test_the_base_is_named_with_its_place_on_the_hub():
    text = written("MobileCLIP2-S0", "dfndr2b", repository="timm/MobileCLIP2-S0-OpenCLIP")
    assert text.partition("# A LoRA")[2].splitlines()[:3] == [
        " adapter for MobileCLIP2-S0",
        "",
        "A small correction to the weights of a CLIP model. It is made for **MobileCLIP2-S0**, "
        "weights `dfndr2b`, [timm/MobileCLIP2-S0-OpenCLIP]"
        "(https://huggingface.co/timm/MobileCLIP2-S0-OpenCLIP) on the hub, and fits no other: the "
        "fingerprint of that base is in `base_model.json`.",
    ]
    assert "on the hub" not in written("MobileCLIP2-S0", "random")


def test_what_was_measured_is_a_table_with_the_settings_under_it():
    layers = ["visual.trunk.head.fc", "text.transformer.resblocks.0.attn.q_proj"]
    text = written(metrics={**METRICS, "kept": (0.94, 1)}, layers=layers)
    assert section(text, "Measured") == (
        "| | before | after |\n"
        "|---|---|---|\n"
        "| R@1, picture to text, of 823 emoji | 26.7% | 31.2% |\n"
        "| kept | 94.0% | 100.0% |\n"
        "\n"
        "Rank 4, alpha 16, dropout 0.1, on 1 layers of the image tower, 1 of the text tower.\n"
        "\n"
        "<details><summary>Which layers</summary>\n"
        "\n"
        "- `visual.trunk.head.fc`\n"
        "- `text.transformer.resblocks.0.attn.q_proj`\n"
        "\n"
        "</details>"
    )


@pytest.mark.parametrize(
    ("name", "weights", "plain", "package"),
    [
        ("nano", "nano", "\nimport mclip_helpers  # knows nano's architecture", '"nano"'),
        ("ViT-B-32", "openai", "", '"ViT-B-32", pretrained="openai"'),
    ],
)
def test_the_lines_that_load_it_are_those_for_its_base(name, weights, plain, package):
    first, second = snippets(written(name, weights, merged=True))
    head = f"import open_clip\nimport torch\nfrom PIL import Image{plain}\n\nfolder = "
    assert first.startswith(head)
    assert second == (
        "import mclip_helpers as mh\n\n"
        f"clip = mh.load_model({package})\n"
        'peft = mh.load_adapter(clip.model, ".")  # the folder of this file\n'
    )
    assert snippets(written(name, weights)) == [second]


@pytest.mark.parametrize(
    ("base", "licence", "words"),
    [
        ("nano/nano", "apache-2.0", "Apache-2.0, as its base. The pictures"),
        ("MobileCLIP-S1/datacompdr", "apple-amlr", "for research, not for products"),
        ("MobileCLIP2-S0/random", None, "The base has random weights"),
        ("ViT-B-32/openai", None, "whose own card says which"),
    ],
)
def test_the_licence_is_the_bases_and_never_made_up(base: str, licence: str | None, words: str):
    text = written(*base.split("/"))
    assert yaml.safe_load(text.split("---")[1]).get("license") == licence
    assert words in section(text, "Licence")
    assert "\n" not in section(text, "Licence")


def test_what_is_given_is_text_and_never_a_template():
    given = "Pictures {{ of }} {% mine %} & others\n\nin two paragraphs, from “home”"
    text = written(trained_with=given)
    assert section(text, "Trained with") == given
    assert ModelCard(text).content == text


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(
    "base", ["nano/nano", "MobileCLIP-S1/datacompdr", "ViT-B-32/x", "x/random"]
)
def test_the_template_asks_for_nothing_that_it_is_not_given(base: str, merged: bool, monkeypatch):
    """Jinja leaves an unknown name blank, which nobody would see."""
    strict = functools.partial(jinja2.Template, undefined=jinja2.StrictUndefined)
    monkeypatch.setattr(jinja2, "Template", strict)
    written(*base.split("/"), merged=merged, metrics=METRICS, trained_with=DATA, repository="a/b")
    with pytest.raises(jinja2.UndefinedError):
        ModelCard.from_template(ModelCard(written()).data, template_path=str(card.TEMPLATE))


def test_what_nobody_gave_is_not_made_up(tmp_path: Path):
    folder = mh.save_adapter(adapted(fresh("nano")), tmp_path / "adapter")
    text = card_in(folder)
    assert text.count("Not given.") == 2
    assert "merged=True" in text and not (folder / "merged").exists()
    assert len(snippets(text)) == 1
