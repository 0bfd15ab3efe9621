"""What lies before the first adapter is frozen: it is computed once, and kept on the disk.

Notebook 04 calls it dark: no gradient goes there. So each picture gives the same numbers there in
every epoch, unless it is augmented. Then a fixed number of views of each picture is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from PIL import Image
from torch import nn

from ..checks import seed_number, whole_number
from ..data import PictureDataset, loader, require_dataset
from ..files import under_key
from ..lora import fingerprint
from ..model import Clip, ClipModel, in_eval, require_clip
from ..progress_bar import progress_bar
from .captions import moves

NAME = "prefix-{key}.npy"
BATCH = 64
ALIKE = 1e-3  # a relative difference that may be rounding; another computation differs by far more
CHOICES = {"float16": np.float16, "float32": np.float32}


class NoPrefix(ValueError):
    """There are no frozen layers at the start of this image tower that could be left out."""


@dataclass(frozen=True)
class Cut:
    """A place in the image tower before which everything is frozen.

    `module` is the first one that runs behind it; `before` are those that need not run again.
    Names are those in `clip.model`.
    """

    module: str
    before: tuple[str, ...]


class PrefixCache:
    """What the frozen layers make of each picture, (N, views, …), in a file; `len()` is N.

    `cache[i]` is one view of picture i as fp32, drawn by PyTorch's generator where there are
    several. `encode(cache[i][None])` goes on from there to its features.
    """

    def __init__(self, clip: Clip, cut: Cut, path: Path, digests: Sequence[str]):
        self.clip, self.cut, self.path, self.digests = clip, cut, path, list(digests)
        self.activations = np.load(path, mmap_mode="r")

    @property
    def key(self) -> str:
        """A hash of all that decides what is in the file."""
        return self.path.stem.rpartition("-")[2]

    def __len__(self) -> int:
        return len(self.activations)

    @property
    def views(self) -> int:
        return self.activations.shape[1]

    def __getitem__(self, i: int) -> torch.Tensor:
        view = int(torch.randint(self.views, ())) if self.views > 1 else 0
        return torch.from_numpy(self.activations[i, view].astype(np.float32))

    def require_for(self, clip: Clip, dataset: PictureDataset) -> None:
        """ValueError unless it was made by this clip, of the pictures of this dataset."""
        if self.clip.model is not clip.model:
            raise ValueError(
                "the prefix was computed by another clip than the one to train; call cache_prefix "
                "with this one, after inject_lora"
            )
        if self.digests != dataset.digests:
            raise ValueError(
                f"the prefix was computed of {len(self)} pictures, and these {len(dataset)} are "
                f"not the same in the same order; call cache_prefix with this dataset"
            )

    def encode(self, activations: torch.Tensor) -> torch.Tensor:
        """Features (N, D) in fp32, from N of the activations."""
        with self.clip.compute.autocast(), _without(self.clip.model, self.cut.before):
            return self.clip.model.encode_image(activations.to(self.clip.device)).float()


def cache_prefix(
    clip: Clip,
    dataset: PictureDataset,
    folder: str | Path,
    *,
    views: int = 1,
    augment: Callable[[Image.Image], Image.Image] | None = None,
    seed: int = 0,
    precision: str = "float16",
) -> PrefixCache:
    """Compute what the frozen layers before the first adapter make of each picture, once.

    Call it after `inject_lora`. The file goes into `folder`, under a name that depends on the
    pictures, the layers and their weights, and the arguments: what has changed is computed anew,
    what has not is taken from there. `views` of each picture are kept, each changed by `augment`
    (compared by its `repr`). `precision` is that of the file: float16 halves it, and rounds.

    NoPrefix (a ValueError) if the first layers are trained, or if they are no straight chain that
    can be cut. OSError where the file can't be written.
    """
    require_clip(clip)
    require_dataset(dataset)
    views, seed = whole_number("views", views, least=1), seed_number(seed)
    if precision not in CHOICES:
        raise ValueError(f"precision is {precision!r:.60}; it must be one of {', '.join(CHOICES)}")
    if views > 1 and augment is None:
        raise ValueError(f"{views} views without augment would be {views} times the same picture")
    cut = find_cut(clip, dataset)
    parts = (
        *dataset.digests,
        fingerprint(clip.model),
        repr(clip.preprocess),
        repr((cut, views, augment, seed if augment else None, precision)),
    )
    write = functools.partial(_write, clip, cut, dataset, views, augment, seed, CHOICES[precision])
    path = under_key(folder, NAME, parts, write)
    return PrefixCache(clip, cut, path, dataset.digests)


def find_cut(clip: Clip, dataset: PictureDataset) -> Cut:
    """The last place in the image tower before which all is frozen and can be left out.

    Tried on two pictures of `dataset`: what runs behind the cut must give the same features.
    """
    images = next(iter(loader(dataset.head(2), clip, 2)))[0].to(clip.device)
    with in_eval(clip.model), torch.no_grad():
        expected = clip.model.encode_image(images)
        for cut in _candidates(clip.model, images):
            try:
                start = _run_up_to(clip, cut, images)
                with _without(clip.model, cut.before):
                    found = clip.model.encode_image(start)
            except (RuntimeError, ValueError, TypeError, IndexError):
                continue  # the layers in between want something else: no straight chain
            apart = (found - expected).norm() / expected.norm()
            if found.shape == expected.shape and apart < ALIKE:
                return cut
    raise NoPrefix(
        "the first layers of the image tower are trained, move in training, or are no straight "
        "chain, so nothing of it can be computed once. It pays where adapters sit late: "
        "targets='default'"
    )


def _candidates(model: ClipModel, images: torch.Tensor) -> Iterator[Cut]:
    """Cuts before the first trained module and before those that it lies in, the latest first."""
    names = {module: name for name, module in model.named_modules()}
    chain, ended = _way_to_trained(model, images)
    for depth in range(len(chain) - 1, 0, -1):
        before = [module for level in ended[: depth + 1] for module in level]
        if before and not any(moves(inner) for module in before for inner in module.modules()):
            yield Cut(names[chain[depth]], tuple(names[module] for module in before))


def _way_to_trained(
    model: ClipModel, images: torch.Tensor
) -> tuple[list[nn.Module], list[list[nn.Module]]]:
    """The modules that are running when the first trained one is called, that one the last.

    And for each of them, what ran and ended before it in the same module.
    """
    called: list[list[nn.Module]] = [[]]  # a list for each call that runs: the calls that it made
    found: list[tuple[list[nn.Module], list[list[nn.Module]]]] = []

    def enter(module: nn.Module, inputs: tuple) -> None:
        if not found and _is_trained(module):
            around = [calls[-1] for calls in called[:-1]]
            ended = [calls[:-1] for calls in called[:-1]]
            found.append(([*around, module], [*ended, list(called[-1])]))
        called[-1].append(module)
        called.append([])

    def leave(module: nn.Module, inputs: tuple, output: object) -> None:
        called.pop()

    inside = list(model.get_submodule("visual").modules())
    hooks = [module.register_forward_pre_hook(enter) for module in inside]
    hooks += [module.register_forward_hook(leave) for module in inside]
    try:
        model.encode_image(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise NoPrefix("nothing in the image tower is trained: compute its features once instead")
    return found[0]


def _is_trained(module: nn.Module) -> bool:
    """Whether a module holds trained parameters itself, or is a layer with an adapter."""
    own = module.parameters(recurse=isinstance(module, LoraLayer))
    return any(parameter.requires_grad for parameter in own)


class _Reached(Exception):
    """The forward pass has come to the cut; `args` is what arrives there."""


@torch.no_grad()
def _run_up_to(clip: Clip, cut: Cut, images: torch.Tensor) -> torch.Tensor:
    """What arrives at the cut, for images (N, 3, H, W)."""

    def stop(module: nn.Module, inputs: tuple) -> None:
        raise _Reached(*inputs)

    hook = clip.model.get_submodule(cut.module).register_forward_pre_hook(stop)
    try:
        with clip.compute.autocast():
            clip.model.encode_image(images.to(clip.device))
    except _Reached as reached:
        (activations,) = reached.args  # a module with several inputs is no link of a chain
        return activations
    finally:
        hook.remove()
    raise ValueError(f"{cut.module} was not called")


@contextmanager
def _without(model: nn.Module, names: tuple[str, ...]) -> Iterator[None]:
    """A block in which these modules hand on what they are given."""
    places = []
    for name in names:
        parent, _, last = name.rpartition(".")
        places.append((model.get_submodule(parent)._modules, last, model.get_submodule(name)))
    try:
        for modules, last, _ in places:
            modules[last] = nn.Identity()
        yield
    finally:
        for modules, last, module in places:
            modules[last] = module


def _write(
    clip: Clip,
    cut: Cut,
    dataset: PictureDataset,
    views: int,
    augment: Callable[[Image.Image], Image.Image] | None,
    seed: int,
    dtype: type,
    path: Path,
) -> None:
    """The activations of all pictures, to a file of NumPy's format; a part at a time in memory."""
    file = None
    steps = views * -(-len(dataset) // BATCH)
    with (
        in_eval(clip.model),
        torch.random.fork_rng(),
        progress_bar(range(steps), "the frozen layers", "batches") as bar,
    ):
        torch.manual_seed(seed)
        for view in range(views):
            batches = loader(dataset, clip, BATCH, augment=augment, workers=clip.compute.workers)
            at = 0
            for images, _ in batches:
                part = _run_up_to(clip, cut, images).float().cpu().numpy()
                if file is None:
                    shape = (len(dataset), views, *part.shape[1:])
                    file = np.lib.format.open_memmap(path, "w+", dtype, shape)
                file[at : at + len(part), view] = part
                at += len(part)
                bar.update()
    assert file is not None
    file.flush()
