"""Pretrain `nano`, the small MobileCLIP that this project carries. Writes data/nano.safetensors.

    python data/train_nano.py --fluent node_modules/fluentui-emoji --noto NotoColorEmoji.ttf

Only the project's maintainers run this; learners use the file. It needs, besides the project:
Debian's `fonts-noto-color-emoji` (OFL) and `librsvg2-bin` (rsvg-convert), and the npm package
`fluentui-emoji` (MIT). The styles: Twemoji (which nano is meant to know best), Noto, and Fluent's
flat, modern and high-contrast. OpenMoji is not among them: it is the style of the lesson, and
only the pictures of its *training* split are used here, to report how far the model is from
knowing them. The test split decides nothing.

Each batch holds different emoji, each in one random style, under random affine maps, colours and
backgrounds. The loss, the schedule and R@1 are the package's. Without warm-up the loss stays at
ln(batch). Gradients are clipped.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import emoji as emoji_package
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from mclip_helpers.data.emoji import EMOJI_SIZE, Emoji, draw_emoji, emoji_catalogue
from mclip_helpers.evaluation import retrieval
from mclip_helpers.files import data_folder
from mclip_helpers.loss import clamp_logit_scale, contrastive_loss
from mclip_helpers.model import NANO, load_model
from mclip_helpers.training.schedule import warmup_cosine

FLUENT = ("flat", "modern", "high-contrast")
TEMPLATES = ("{}", "{}", "{}", "{} emoji", "an emoji of {}", "a picture of {}", "a drawing of {}")
STYLE_WEIGHTS = {"twemoji": 3.0, "noto": 1.5, "flat": 1.0, "modern": 1.0, "high-contrast": 0.5}


# ------------------------------------------------------------------------------------- pictures


def draw_noto(item: Emoji, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    box = font.getbbox(item.char)
    if box[2] - box[0] > 160:  # a sequence that this font doesn't join
        return None
    picture = Image.new("RGBA", (136, 136), (255, 255, 255, 0))
    ImageDraw.Draw(picture).text((68, 68), item.char, font=font, embedded_color=True, anchor="mm")
    return picture.resize((EMOJI_SIZE, EMOJI_SIZE), Image.Resampling.LANCZOS)


def fluent_file(item: Emoji, folder: Path, style: str) -> Path | None:
    slug = re.sub(r"[^a-z0-9]+", "-", item.en.lower().replace("’", "").replace("'", "")).strip("-")
    for name in (slug, f"{slug}-default"):
        path = folder / "icons" / style / f"{name}.svg"
        if path.exists():
            return path
    return None


def rasterise(svg: Path, cache: Path) -> Image.Image:
    png = cache / svg.parent.name / f"{svg.stem}.png"
    if not png.exists():
        png.parent.mkdir(parents=True, exist_ok=True)
        size = str(EMOJI_SIZE)
        command = ["rsvg-convert", "-w", size, "-h", size, "-a", str(svg), "-o", str(png)]
        subprocess.run(command, check=True)
    picture = Image.new("RGBA", (EMOJI_SIZE, EMOJI_SIZE), (255, 255, 255, 0))
    drawn = Image.open(png).convert("RGBA")
    picture.paste(drawn, ((EMOJI_SIZE - drawn.width) // 2, (EMOJI_SIZE - drawn.height) // 2))
    return picture


def to_tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture.convert("RGBA")).copy()).permute(2, 0, 1)


def load_styles(items: list[Emoji], args: argparse.Namespace) -> dict[str, dict[int, torch.Tensor]]:
    """For each style, the uint8 RGBA picture (4, 72, 72) of every emoji that it has."""
    noto = ImageFont.truetype(args.noto, size=109)  # the only size that this bitmap font has
    styles: dict[str, dict[int, torch.Tensor]] = {name: {} for name in STYLE_WEIGHTS}
    for i, item in enumerate(tqdm(items, desc="pictures")):
        styles["twemoji"][i] = to_tensor(draw_emoji(item, "twemoji"))
        picture = draw_noto(item, noto)
        if picture is not None:
            styles["noto"][i] = to_tensor(picture)
        for style in FLUENT:
            svg = fluent_file(item, args.fluent, style)
            if svg is not None:
                styles[style][i] = to_tensor(rasterise(svg, args.cache))
    return styles


def augment(rgba: torch.Tensor, size: int, rng: torch.Generator) -> torch.Tensor:
    """(N, 4, 72, 72) uint8 to (N, 3, size, size) in 0…1: moved, recoloured, on a background."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, generator=rng)

    def sometimes(p: float) -> torch.Tensor:
        return torch.rand(n, generator=rng) < p

    n = len(rgba)
    angle, zoom = uniform(-0.3, 0.3), uniform(0.85, 1.35)
    stretch, shear = uniform(0.88, 1.14), uniform(-0.15, 0.15)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    rows = [
        torch.stack([cos * stretch, -sin + shear, uniform(-0.15, 0.15)], 1),
        torch.stack([sin, cos / stretch, uniform(-0.15, 0.15)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [n, 4, size, size], align_corners=False)
    rgba = rgba.float() / 255
    rgba[:, :3] *= rgba[:, 3:]  # premultiplied, so that edges don't pick up hidden colours
    moved = F.grid_sample(rgba, grid, mode="bilinear", align_corners=False)
    colour, alpha = moved[:, :3], moved[:, 3:]

    ground = torch.where(sometimes(0.7)[:, None], torch.ones(n, 3), torch.rand(n, 3, generator=rng))
    x = colour + (1 - alpha) * ground[:, :, None, None]

    grey = (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    saturation = torch.where(sometimes(0.1), torch.zeros(n), uniform(0.5, 1.5))
    x = grey + saturation[:, None, None, None] * (x - grey)
    mix = torch.eye(3) + 0.1 * torch.randn(n, 3, 3, generator=rng)  # tints and turned hues
    mix = mix / mix.sum(2, keepdim=True)
    x = torch.einsum("nij,njhw->nihw", mix, x)
    x = 0.5 + uniform(0.75, 1.2)[:, None, None, None] * (x - 0.5)
    x = x + uniform(-0.08, 0.08)[:, None, None, None]

    blur = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = torch.where(sometimes(0.15)[:, None, None, None], blur, x)
    for i in sometimes(0.15).nonzero().flatten().tolist():
        h, w = torch.randint(8, size // 3, (2,), generator=rng).tolist()
        top, left = torch.randint(0, size - size // 3, (2,), generator=rng).tolist()
        x[i, :, top : top + h, left : left + w] = torch.rand(3, 1, 1, generator=rng)
    return x.clamp(0, 1).contiguous()  # channels_last crashes: see `_place` in model/clip.py


def plain(rgba: torch.Tensor, size: int) -> torch.Tensor:
    """The picture on white, as `load_model("nano").preprocess` gives it but for the filter."""
    x = rgba.float() / 255
    x = x[:, :3] * x[:, 3:] + 1 - x[:, 3:]
    x = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
    return x.clamp(0, 1).contiguous()


# ------------------------------------------------------------------------------------- captions


def captions_of(item: Emoji) -> list[str]:
    """The name first, then what else the emoji is called."""
    aliases = emoji_package.EMOJI_DATA[item.char].get("alias", [])
    return list(dict.fromkeys([item.en, *(a.strip(":").replace("_", " ") for a in aliases)]))


def a_caption(names: list[str], rng: random.Random) -> str:
    name = names[0] if len(names) == 1 or rng.random() < 0.7 else rng.choice(names[1:])
    return rng.choice(TEMPLATES).format(name)


# ------------------------------------------------------------------------------------- training


def training_batches(
    styles: Mapping[str, Mapping[int, torch.Tensor]],
    names: Sequence[list[str]],
    token_of: Mapping[str, torch.Tensor],
    image_size: int,
    args: argparse.Namespace,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """`args.steps` batches of different emoji, each in one random style: images and tokens."""
    rng, torch_rng = random.Random(args.seed), torch.Generator().manual_seed(args.seed)
    order: list[int] = []
    for _ in range(args.steps):
        if len(order) < args.batch:
            order = rng.sample(range(len(names)), len(names))
        batch, order = order[: args.batch], order[args.batch :]
        pictures = []
        for i in batch:
            has = [name for name in styles if i in styles[name]]
            [style] = rng.choices(has, [STYLE_WEIGHTS[name] for name in has])
            pictures.append(styles[style][i])
        tokens = [token_of[a_caption(names[i], rng)] for i in batch]
        yield augment(torch.stack(pictures), image_size, torch_rng), torch.stack(tokens)


def optimizer_of(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices and kernels only."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=lr,
        betas=(0.9, 0.98),
        fused=True,
    )


@torch.no_grad()
def recall_at_1(model: nn.Module, images: torch.Tensor, tokens: torch.Tensor) -> float:
    """The share of images whose own caption, row i of `tokens`, is the most similar of all."""
    model.eval()
    image_features = torch.cat([model.encode_image(x) for x in images.split(256)])
    text_features = torch.cat([model.encode_text(t) for t in tokens.split(256)])
    model.train()
    return retrieval(image_features, text_features, ks=(1,)).image_to_text[1]


def train(
    model: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    watched: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    seen_tokens: torch.Tensor,
    args: argparse.Namespace,
) -> None:
    """Pretrain; print the loss, print R@1 of `watched` (images, tokens) by name, and save."""
    optimizer = optimizer_of(model, args.lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, args.steps)
    )
    model.train()
    begun = time.time()
    for step, (images, tokens) in enumerate(batches):
        loss = contrastive_loss(
            model.encode_image(images), model.encode_text(tokens), model.logit_scale.exp()
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        clamp_logit_scale(model.logit_scale)

        if step % 50 == 0:
            seconds = time.time() - begun
            print(f"step {step:5d}  loss {loss.item():.3f}  {seconds:6.0f} s", flush=True)
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            recall = [f"{name} {recall_at_1(model, *pairs):.1%}" for name, pairs in watched.items()]
            scale = model.logit_scale.exp().item()
            print(f"step {step + 1:5d}  R@1 {', '.join(recall)}  scale {scale:.1f}", flush=True)
            save(model, seen_tokens, args.out)


def save(model: nn.Module, tokens: torch.Tensor, path: Path) -> None:
    """Half precision, and only the token embeddings that training has seen (row numbers beside)."""
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    rows = tokens.unique()
    state["text.token_embedding.rows"] = rows.int()
    state["text.token_embedding.weight"] = state["text.token_embedding.weight"][rows]
    state = {
        k: (v.half() if v.is_floating_point() else v).contiguous()
        for k, v in state.items()
        if not k.endswith("num_batches_tracked")
    }
    temporary = path.with_suffix(".tmp")
    save_file(state, temporary, metadata={"format": "pt", "licence": "Apache-2.0"})
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fluent", type=Path, required=True, help="folder of fluentui-emoji")
    parser.add_argument("--noto", type=Path, required=True, help="NotoColorEmoji.ttf")
    parser.add_argument("--cache", type=Path, default=Path(".cache/fluent"))
    parser.add_argument("--out", type=Path, default=data_folder() / f"{NANO}.safetensors")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    items = list(emoji_catalogue())
    styles = load_styles(items, args)
    print({name: len(pictures) for name, pictures in styles.items()})

    clip = load_model(NANO, pretrained="random", device="cpu")
    size = clip.image_size[0]
    names = [captions_of(item) for item in items]
    spoken = [t.format(name) for group in names for name in group for t in set(TEMPLATES)]
    seen_tokens = clip.tokenizer(spoken)
    token_of = dict(zip(spoken, seen_tokens, strict=True))

    tokens = clip.tokenizer([item.en for item in items])
    lesson = [i for i, item in enumerate(items) if item.split == "train"]
    twemoji = torch.stack([styles["twemoji"][i] for i in range(len(items))])
    openmoji = torch.stack([to_tensor(draw_emoji(items[i], "openmoji")) for i in lesson])
    watched = {
        f"Twemoji (all {len(items)})": (plain(twemoji, size), tokens),
        f"OpenMoji (train split, {len(lesson)})": (plain(openmoji, size), tokens[lesson]),
    }
    batches = training_batches(styles, names, token_of, size, args)
    train(clip.model, batches, watched, seen_tokens, args)


if __name__ == "__main__":
    main()
