"""What `save_adapter` and `merge_adapter` promise: nothing of the user's is lost or made up."""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from cases import Case, files_in
from conftest import fresh, load_once
from markdown_it import MarkdownIt
from peft import LoraConfig, get_peft_model

import mclip_helpers as mh

# ------------------------------------------------------------------------------ scenes and actions


@functools.cache
def trained() -> torch.nn.Module:
    """`nano` with adapters that do something. Shared: what is refused leaves it as it is."""
    return newly_trained()


def newly_trained(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    lora_model = mh.inject_lora(fresh("nano").model, rank=2, targets=["visual.trunk.head.fc"])
    for _, layer in mh.lora_layers(lora_model):
        torch.nn.init.normal_(layer.lora_B["default"].weight)
    return lora_model


def numbers(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach() for name, p in model.named_parameters() if ".lora_" in name]


@functools.cache
def saved_once() -> Path:
    return mh.save_adapter(trained(), Path(tempfile.mkdtemp()) / "adapter")


@dataclass
class Scene:
    """Where it is saved, and the folder in which nothing else may change."""

    path: Any
    around: Path


def at(name: str = "adapter", *changes: Callable[[Path], Any]) -> Callable[[Path], Scene]:
    """A saved adapter in the folder "adapter", then `changes` of it; the path is `name` beside."""

    def prepare(folder: Path) -> Scene:
        shutil.copytree(saved_once(), folder / "adapter")
        for change in changes:
            change(folder / "adapter")
        return Scene(folder / name, folder)

    return prepare


def nowhere(path: Any = "adapter") -> Callable[[Path], Scene]:
    """An empty folder, and a path in it."""
    return lambda folder: Scene(folder / path if isinstance(path, str) else path, folder)


def with_file(name: str, content: str = "of mine") -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)

    return change


def edited(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + b"\n")


def noted(**changes: Any) -> Callable[[Path], Any]:
    """Another value in `base_model.json`; None takes it out."""

    def change(folder: Path) -> None:
        file = folder / "base_model.json"
        notes = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({k: v for k, v in notes.items() if v is not None}))

    return change


def as_older_versions_saved(folder: Path) -> None:
    """With a checksum of the weights alone."""
    noted(files=None, sha256=None, adapter_sha256="0" * 64)(folder)


def only(name: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        for file in folder.iterdir():
            if file.name != name:
                file.unlink()

    return change


def replaced_by(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        shutil.rmtree(folder)
        make(folder)

    return change


def save(scene: Scene, **arguments: Any) -> Path:
    return mh.save_adapter(trained(), scene.path, **arguments)


def saving(model: Any) -> Callable[[Scene], Path]:
    return lambda scene: mh.save_adapter(model() if callable(model) else model, scene.path)


def loads_again(scene: Scene, result: Path) -> bool:
    """The folder holds the adapter, whole, and nothing is left beside it."""
    loaded = mh.load_adapter(fresh("nano").model, result)
    hidden = [name for name in files_in(scene.around) if name.startswith(".")]
    same = zip(numbers(loaded), numbers(trained()), strict=True)
    return not hidden and all(torch.equal(a, b) for a, b in same)


def files(scene: Scene) -> dict:
    return files_in(scene.around)


def names(scene: Scene) -> list:
    return sorted(scene.around.rglob("*"))


def failing(error: OSError, where: str) -> Callable[[Scene], Path]:
    """A save in which the system refuses what `where` does."""

    def does(scene: Scene) -> Path:
        with mock.patch(where, side_effect=error):
            return save(scene)

    return does


def refusing(name: str, prepare: Callable, *says: str, does: Callable = save, **more: Any) -> Case:
    more = {"refused": FileExistsError, "keeps": files} | more
    return Case(name, prepare, does, says=says, **more)


# ------------------------------------------------------------------------------- what is in the way

IN_THE_WAY = [
    refusing(
        "a file in the way is not replaced",
        at("adapter", replaced_by(lambda path: path.write_text("thesis"))),
        "is a file",
    ),
    refusing(
        "a folder of something else is not replaced",
        at("adapter", replaced_by(lambda path: with_file("thesis.docx")(path))),
        "thesis.docx",
    ),
    *(
        refusing(
            f"{name!r} beside an adapter is not deleted",
            at("adapter", with_file(name)),
            name.replace("\n", "\\n"),
        )
        for name in ("thesis.pdf", "notes/thesis.pdf", ".hidden", "merged/model.bin", "a b\nc.txt")
    ),
    *(
        refusing(f"a changed {name} is not overwritten", at("adapter", edited(name)), name)
        for name in (
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
        )
    ),
    refusing(
        "an empty folder beside an adapter is not deleted",
        at("adapter", lambda folder: (folder / "empty").mkdir()),
        "empty",
    ),
    refusing(
        "a link beside an adapter is not deleted",
        at("adapter", lambda folder: (folder / "data").symlink_to("..")),
        "data",
    ),
    refusing(
        "a broken link beside an adapter is not deleted",
        at("adapter", lambda folder: (folder / "data").symlink_to("nowhere")),
        "data",
    ),
    refusing(
        "a pipe beside an adapter is named, and not waited for",
        at("adapter", lambda folder: os.mkfifo(folder / "pipe")),
        "pipe",
        keeps=names,
    ),
    refusing(
        "a changed base_model.json is not overwritten",
        at("adapter", noted(logit_scale=3.0)),
        "base_model.json",
    ),
    refusing(
        "a remark in base_model.json is not overwritten",
        at("adapter", noted(remark="my best run")),
        "base_model.json",
    ),
    refusing(
        "a base_model.json that is no JSON is not overwritten",
        at("adapter", with_file("base_model.json", "{")),
        "base_model.json",
    ),
    refusing(
        "an adapter of an older version, whose card may be the user's work, is not replaced",
        at("adapter", as_older_versions_saved),
        "older version",
    ),
    refusing(
        "an adapter that PEFT saved is not replaced",
        at("adapter", lambda folder: (folder / "base_model.json").unlink()),
        "adapter_model.safetensors",
    ),
    refusing("the folder around an adapter is not replaced", at("."), "adapter"),
    refusing(
        "the folder of a link is not replaced if it is not ours",
        at(
            "link",
            with_file("thesis.pdf"),
            lambda folder: (folder.parent / "link").symlink_to("adapter"),
        ),
        "thesis.pdf",
    ),
    refusing(
        "the root of all folders is not replaced",
        nowhere(Path("/")),
        "root",
        refused=OSError,
    ),
]

REPLACED = [
    Case("a new place is written to", nowhere(), save, holds=loads_again),
    Case("folders above it are made", nowhere("a/b/adapter"), save, holds=loads_again),
    Case("the same model is saved twice to the same place", at(), save, holds=loads_again),
    Case(
        "with a merged model, and again without it",
        lambda folder: Scene(save(Scene(folder / "adapter", folder), merged=True), folder),
        save,
        holds=lambda scene, path: loads_again(scene, path) and not (path / "merged").exists(),
    ),
    Case(
        "an empty folder is used",
        at("adapter", replaced_by(Path.mkdir)),
        save,
        holds=loads_again,
    ),
    Case(
        "an adapter of which a file was deleted is replaced",
        at("adapter", only("base_model.json")),
        save,
        holds=loads_again,
    ),
    Case(
        "a link stays a link, and its target is replaced",
        at("link", lambda folder: (folder.parent / "link").symlink_to("adapter")),
        save,
        holds=lambda scene, path: scene.path.is_symlink() and loads_again(scene, path),
    ),
    Case(
        "a link to nothing yet stays a link",
        at("link", lambda folder: (folder.parent / "link").symlink_to("new")),
        save,
        holds=lambda scene, path: scene.path.is_symlink() and loads_again(scene, path),
    ),
    Case("a path may be a text", lambda f: Scene(f"{f}/adapter", f), save, holds=loads_again),
    Case(
        "a path may have a dot, a space and letters of any script in it",
        nowhere("mein Ädapter.v2 한글"),
        save,
        holds=loads_again,
    ),
    Case(
        "an adapter that a kill left hidden between two renames comes back",
        at("adapter", lambda folder: folder.rename(folder.with_name(".adapter.mclip-old"))),
        lambda scene: mh.load_adapter(fresh("nano").model, scene.path),
        holds=lambda scene, _: loads_again(scene, scene.path),
    ),
    Case(
        "what a killed save left half written is cleared by the next one",
        at("adapter", lambda folder: shutil.copytree(folder, folder.parent / ".adapter.mclip-new")),
        save,
        holds=loads_again,
    ),
]

# --------------------------------------------------------------------------- what can't be written

FULL = OSError(errno.ENOSPC, "No space left on device")
READ_ONLY = OSError(errno.EROFS, "Read-only file system")

UNWRITABLE = [
    *(
        refusing(
            f"{what} in {where.rpartition('.')[2]}: one sentence, and the old adapter stays",
            at(),
            "can't be written",
            "unchanged",
            does=failing(error, where),
            refused=OSError,
        )
        for what, error in (("a full disk", FULL), ("a read-only place", READ_ONLY))
        for where in (
            "peft.PeftModel.save_pretrained",
            "pathlib.Path.write_text",
            "pathlib.Path.rename",
            "pathlib.Path.replace",
            "os.fsync",
        )
    ),
    *(
        refusing(
            f"{what} is refused in one sentence",
            at(name),
            "can't be written",
            refused=OSError,
        )
        for what, name in (
            ("a name that is too long", "x" * 300),
            ("a path below a file", "adapter/README.md/below"),
            ("a name with a NUL in it", "a\0b"),
        )
    ),
    *(
        refusing(
            f"a path that is {path!r} is refused",
            nowhere(path),
            "path",
            "a text or a Path",
            refused=TypeError,
        )
        for path in (None, 3, ["adapter"], b"adapter")
    ),
    refusing(
        "a link that leads back to itself is refused",
        at("link", lambda folder: (folder.parent / "link").symlink_to("link")),
        "leads back to itself",
        refused=OSError,
    ),
]

# --------------------------------------------------------------------------- what is not an adapter


@functools.cache
def merged_away() -> torch.nn.Module:
    """What `lora_model` is after `merge_adapter(lora_model)`."""
    lora_model = newly_trained()
    mh.merge_adapter(lora_model)
    return lora_model


def holding(value: float) -> Callable[[], torch.nn.Module]:
    """Adapters of which one number is `value`."""

    def make() -> torch.nn.Module:
        lora_model = newly_trained()
        with torch.no_grad():
            numbers(lora_model)[1].view(-1)[-1] = value
        return lora_model

    return make


def with_scale(value: float) -> Callable[[], torch.nn.Module]:
    def make() -> torch.nn.Module:
        lora_model = newly_trained()
        torch.nn.init.constant_(lora_model.get_base_model().logit_scale, value)
        return lora_model

    return make


def made_by_peft(**options: Any) -> Callable[[], torch.nn.Module]:
    def make() -> torch.nn.Module:
        chosen = {"target_modules": "visual.trunk.head.fc", "r": 2} | options
        return get_peft_model(fresh("nano").model, LoraConfig(**chosen))

    return make


def added_to_the_base() -> torch.nn.Module:
    lora_model = newly_trained()
    lora_model.merge_adapter()
    return lora_model


def with_a_second() -> torch.nn.Module:
    lora_model = newly_trained()
    lora_model.add_adapter("second", LoraConfig(target_modules="visual.trunk.head.fc", r=2))
    return lora_model


NO_MODEL = [
    ("None", None),
    ("a text", "nano"),
    ("a list", [1]),
    ("a Clip", lambda: load_once("nano")),
    ("a plain open_clip model", lambda: load_once("nano").model),
    ("the model under the adapters", lambda: trained().get_base_model()),
]
NOT_TO_BE_SAVED = [
    ("after merge_adapter", merged_away, ("no LoRA adapters", "merge_adapter")),
    ("adapters with NaN", holding(math.nan), ("NaN", "lora_B", "visual.trunk.head.fc")),
    ("adapters with infinity", holding(math.inf), ("infinity", "lora_B")),
    ("a logit_scale that is NaN", with_scale(math.nan), ("logit_scale",)),
    ("a logit_scale that is infinite", with_scale(math.inf), ("logit_scale",)),
    ("a logit_scale whose exponential is infinite", with_scale(1e4), ("logit_scale",)),
    ("rsLoRA, which load_adapter refuses", made_by_peft(use_rslora=True), ("use_rslora",)),
    ("DoRA, which load_adapter refuses", made_by_peft(use_dora=True), ("use_dora",)),
    ("PiSSA, which has changed the base", made_by_peft(init_lora_weights="pissa"), ("pissa",)),
    ("trained biases", made_by_peft(bias="lora_only"), ("bias",)),
    ("a copy of a whole layer", made_by_peft(modules_to_save=["final_conv"]), ("modules_to_save",)),
    ("adapters that PEFT has added to the base", added_to_the_base, ("unmerge_adapter",)),
    ("a second adapter, which would be left out", with_a_second, ("second",)),
]

NO_ADAPTER = [
    *(
        refusing(
            f"{what} is not saved over an adapter",
            at(),
            "inject_lora",
            does=saving(model),
            refused=TypeError,
        )
        for what, model in NO_MODEL
    ),
    *(
        refusing(
            f"{what}: not saved over a good adapter",
            at(),
            *says,
            does=saving(model),
            refused=ValueError,
        )
        for what, model, says in NOT_TO_BE_SAVED
    ),
    Case(
        "plain LoRA that PEFT made is saved, and loads again",
        nowhere(),
        saving(made_by_peft()),
        holds=lambda scene, path: mh.load_adapter(fresh("nano").model, path) is not None,
    ),
    Case(
        "layers that PEFT found by a pattern are saved by their names",
        nowhere(),
        lambda scene: mh.save_adapter(
            get_peft_model(
                fresh("nano").model, LoraConfig(target_modules=r".*blocks\.0\.mlp\.fc.*")
            ),
            scene.path,
        ),
        holds=lambda scene, path: mh.load_adapter(fresh("nano").model, path) is not None,
    ),
]


def merging(model: Any) -> Callable[[Scene], Any]:
    return lambda scene: mh.merge_adapter(scene.path)


def model_scene(make: Any) -> Callable[[Path], Scene]:
    return lambda folder: Scene(make() if callable(make) else make, folder)


def model_bytes(scene: Scene) -> Any:
    if not isinstance(scene.path, torch.nn.Module):
        return None
    return [(name, type(module), module.training) for name, module in scene.path.named_modules()], [
        value.numpy().tobytes() for value in scene.path.state_dict().values()
    ]


MERGED = [
    *(
        Case(
            f"{what} is not merged",
            model_scene(model),
            merging(model),
            refused=TypeError,
            says=("inject_lora",),
            keeps=model_bytes,
        )
        for what, model in NO_MODEL
    ),
    Case(
        "a model that was merged is not merged again",
        model_scene(merged_away),
        merging(merged_away),
        refused=ValueError,
        says=("no LoRA adapters", "merge_adapter"),
        keeps=model_bytes,
    ),
    *(
        Case(
            f"adapters with {value} are not merged",
            model_scene(holding(value)),
            merging(value),
            refused=ValueError,
            says=("visual.trunk.head.fc", "can't be merged"),
            keeps=model_bytes,
        )
        for value in (math.nan, math.inf, -math.inf)
    ),
]

# ------------------------------------------------------------------------- what is said on the card

NOT_METRICS: list[tuple[str, Any]] = [
    ("a share of NaN", {"R@1": (math.nan, 0.5)}),
    ("a share of infinity", {"R@1": (0.5, math.inf)}),
    ("a share in per cent", {"R@1": (26.7, 31.2)}),
    ("a negative share", {"R@1": (-0.1, 0.5)}),
    ("a text for a share", {"R@1": ("0.1", 0.5)}),
    ("True for a share", {"R@1": (True, 0.5)}),
    ("one number", {"R@1": 0.5}),
    ("one share of a pair", {"R@1": (0.5,)}),
    ("three shares", {"R@1": (0.1, 0.2, 0.3)}),
    ("a text for a pair", {"R@1": "ab"}),
    ("a number for a name", {1: (0.1, 0.2)}),
    ("half a character in a name", {"\ud800": (0.1, 0.2)}),
    ("a list", [("R@1", 0.1, 0.2)]),
    ("a number", 0.5),
]
NOT_DATA: list[tuple[str, Any]] = [
    ("a number", 718),
    ("None", None),
    ("bytes", b"718 pictures"),
    ("a list", ["718 pictures"]),
    ("half a character", "718 \udcff"),
]
# What would be something else in Markdown or HTML.
TEXTS = [
    "# A heading",
    "A heading\n===",
    "A heading\n---",
    "---\nlicense: mit\n---",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "a\n:-:\nb",
    "```python\nimport os\n```",
    "~~~\ncode",
    "    code",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<details>\n<summary>",
    "<!-- everything below is gone",
    "&lt;b&gt; &amp; &#42; &",
    "[here](javascript:alert(1)) ![picture](x.png)",
    "[1]: https://example.org",
    "<https://example.org>",
    "*one* **two** _three_ __four__ ~~five~~ `six`",
    "1. one\n2) two\n- three\n+ four\n* five",
    "> quoted",
    "* * *",
    "ends with a backslash\\",
    "\\# and \\\\",
    "$\\frac{1}{2}$ and $$x$$",
    "{{ card_data }} {% for x in y %} {# z #}",
    "</details></table></div>",
    "one | two\n--- | ---",
    "see https://example.org/_a_/*b*?c=1&d=2|3, (https://example.org).",
    "a paragraph\n\nand another",
]
PLAIN = [
    "718 drawings of emoji, at 64 px.",
    "Pictures: © the OpenMoji project (https://openmoji.org/about?x=1), CC-BY-SA 4.0; 50 % more!",
    "“Häuser” & 한글 — 3:1, a+b = c, e.g. #3 (1–2).",
]


def card(path: Path) -> str:
    return (path / "README.md").read_text(encoding="utf-8")


def rendered(text: str) -> str:
    """What a browser would show of Markdown, with all white space as one space."""
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    assert "<script" not in html and "<img" not in html
    page = re.sub(r"<[^>]*>", " ", re.sub(r"</?a\b[^>]*>", "", html))
    for entity, letter in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        page = page.replace(entity, letter)
    return " ".join(page.split())


def part(path: Path, title: str) -> str:
    return card(path).partition(f"## {title}\n\n")[2].partition("\n\n## ")[0]


def headings(path: Path) -> list[str]:
    """Everything that gives the card its form, as a renderer sees it."""
    tokens = MarkdownIt("commonmark").enable("table").parse(card(path).split("---\n", 2)[2])
    kinds = ("heading_open", "table_open", "fence", "html_block", "hr", "bullet_list_open")
    return [token.type for token in tokens if token.type in kinds]


@functools.cache
def usual_headings() -> list[str]:
    return headings(save(nowhere()(Path(tempfile.mkdtemp())), data="x", metrics={"x": (0, 1)}))


def with_text(text: str) -> Callable[[Scene], Path]:
    return lambda scene: save(scene, data=text, metrics={text: (0.25, 0.5)})


def shows(text: str) -> Callable[[Scene, Path], bool]:
    """The text, exactly, under the heading and in the table; and the card's form is as usual."""
    words = " ".join(text.split())

    def holds(scene: Scene, path: Path) -> bool:
        return (
            rendered(part(path, "Trained with")) == words
            and f"{words} 25.0% 50.0%" in rendered(part(path, "Measured"))
            and headings(path) == usual_headings()
        )

    return holds


CARD = [
    *(
        refusing(
            f"metrics that are {what} are refused before anything is written",
            at(),
            "metrics",
            does=functools.partial(save, metrics=metrics),
            refused=ValueError,
        )
        for what, metrics in NOT_METRICS
    ),
    *(
        refusing(
            f"data that is {what} is refused before anything is written",
            at(),
            "data",
            does=functools.partial(save, data=data),
            refused=ValueError,
        )
        for what, data in NOT_DATA
    ),
    *(
        Case(f"a card shows {text!r} as that", nowhere(), with_text(text), holds=shows(text))
        for text in TEXTS
    ),
    *(
        Case(
            f"a card has {text!r} as it is",
            nowhere(),
            with_text(text),
            holds=lambda scene, path, text=text: card(path).count(text) == 2,
        )
        for text in PLAIN
    ),
    Case(
        "a card shows control characters as replaced",
        nowhere(),
        with_text("a\0b\x1b[31mc"),
        holds=lambda scene, path: rendered(part(path, "Trained with")) == "a\ufffdb\ufffd[31mc",
    ),
]

CASES = [*IN_THE_WAY, *REPLACED, *UNWRITABLE, *NO_ADAPTER, *MERGED, *CARD]
