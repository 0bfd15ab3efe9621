"""Exercises of notebook 07: the same gradient in less time or memory, and caches that lie."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import nn

from ..loss import contrastive_loss
from .programs import INPUTS, Mistake, Program
from .questions import Question, Wrong
from .values import Said


def _tower_and_batch(k: int) -> tuple[nn.Linear, torch.Tensor, torch.Tensor, int]:
    """A tower of one layer, pictures, the features of their captions, and a chunk size."""
    n = 5 + k  # at least three chunks
    return nn.Linear(3, 4), torch.randn(n, 3), torch.randn(n, 4), 2 + k // 4


class Graphs:
    """How many pictures' graphs are alive, and the most that there were at once.

    A graph lives as long as what it has saved for `backward`: the pictures are handed to it in an
    object that counts until it is dropped. The hooks are around the whole answer, so that what
    saves by other means, such as PyTorch's checkpoints, goes before them.
    """

    def __init__(self) -> None:
        self.alive = self.waited = self.called = 0
        self.part = torch.empty(0)

    def encoded(self, tower: nn.Module, part: torch.Tensor) -> torch.Tensor:
        """The features of some pictures; their graph is counted, if they have one."""
        self.look()
        self.part = part
        features = tower(part)
        self.part = torch.empty(0)
        self.called = max(self.called, len(part) if features.requires_grad else 0)
        return features

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        """A block in which graphs that save pictures are counted."""

        def pack(saved: torch.Tensor) -> object:
            of_part = self.part.numel() and saved.data_ptr() == self.part.data_ptr()
            return Kept(saved, self) if of_part else saved

        def unpack(saved: torch.Tensor | Kept) -> torch.Tensor:
            return saved.tensor if isinstance(saved, Kept) else saved

        return torch.autograd.graph.saved_tensors_hooks(pack, unpack)

    def look(self) -> None:
        """Note how many graphs are waiting while something new begins."""
        self.waited = max(self.waited, self.alive)


class Kept:
    """A tensor of pictures that a graph has saved."""

    def __init__(self, tensor: torch.Tensor, graphs: Graphs) -> None:
        self.tensor, self.graphs = tensor, graphs
        graphs.alive += len(tensor)

    def __del__(self) -> None:
        self.graphs.alive -= len(self.tensor)


def use_cached(
    answer: Callable, tower: nn.Linear, pictures: torch.Tensor, texts: torch.Tensor, chunk: int
) -> dict[str, object]:
    """The loss, the gradient of the tower, and how many pictures were in the graph at once."""
    graphs, arrived = Graphs(), [False]

    def encode(part: torch.Tensor) -> torch.Tensor:
        return graphs.encoded(tower, part)

    def note(_: torch.Tensor) -> None:
        arrived[0] = True

    def loss_of(features: torch.Tensor) -> torch.Tensor:
        graphs.look()
        if features.requires_grad:
            features.register_hook(note)
        return contrastive_loss(features, texts, 5.0)

    def beside_chunk(count: int) -> str:
        return Said("at most `chunk`" if count <= chunk else "more than `chunk`")

    with graphs.hooks():
        loss = answer(encode, pictures, loss_of, chunk)
    gradient = tower.weight.grad
    return {
        "loss": loss.detach() if isinstance(loss, torch.Tensor) else loss,
        "gradient of the weights": torch.zeros(4, 3) if gradient is None else gradient,
        "gradient of the features": Said("computed" if arrived[0] else "not computed"),
        "pictures of one call that have a graph": beside_chunk(graphs.called),
        # The last chunk's graph may still be in a variable when the next one begins.
        "pictures whose graph waits for others": beside_chunk(graphs.waited),
    }


def _two_gradients(k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two gradients; in one run they point away from each other."""
    right = torch.randn(3 + k)
    return (-0.4 if k == 3 else 0.4) * right + 0.3 * torch.randn(3 + k), right


def _for_a_key(k: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Pixels and weights in whole numbers, and the side of the transform.

    The last pictures are so many that a printed tensor would be shortened.
    """
    count = 2 + k if k < INPUTS - 1 else 400
    pixels = torch.randint(1, 255, (count, 2, 2), dtype=torch.uint8)
    return pixels, torch.randint(1, 9, (4,)).float(), 32 + k


def use_key(
    answer: Callable[..., Hashable], pixels: torch.Tensor, weights: torch.Tensor, side: int
) -> dict[str, bool]:
    """Whether the key changes with what it should change with, and only then."""
    first = answer(pixels, weights, side)
    if first is None:
        return {"the same again gets the same key": None}  # type: ignore[dict-item]
    hash(first)
    darker, brighter, crossed, turned = (pixels.clone() for _ in range(4))
    darker[len(darker) // 2, 0, 0] -= 1
    brighter[0, 0, 0] -= 1
    brighter[-1, -1, -1] += 1
    crossed[0] += torch.tensor([[1, -1], [-1, 1]]).to(torch.uint8)  # −1 is 255: it wraps around
    turned[0] = pixels[0].rot90(2)
    one, other = pixels.clone(), pixels.clone()
    one[0, 0] = torch.tensor([1, 12])
    other[0, 0] = torch.tensor([11, 2])
    with_one = answer(one, weights, side)
    moved = weights.clone()
    moved[1] += 1e-4
    swapped = weights.flip(0)
    return {
        "the same again gets the same key": answer(pixels.clone(), weights.clone(), side) == first,
        "the same tensors get the same key": answer(pixels, weights, side) == first,
        "one pixel changed": answer(darker, weights, side) != first,
        "two pixels changed, the sum not": answer(brighter, weights, side) != first,
        "four pixels changed, no sum of a row or column": answer(crossed, weights, side) != first,
        "pixels of a picture in another order": answer(turned, weights, side) != first
        or bool((turned == pixels).all()),
        "1 and 12 instead of 11 and 2": answer(other, weights, side) != with_one,
        "pictures in another order": answer(pixels.flip(0), weights, side) != first,
        "one picture less": answer(pixels[:-1], weights, side) != first,
        "one weight changed a little": answer(pixels, moved, side) != first,
        "weights in another order": answer(pixels, swapped, side) != first
        or bool((swapped == weights).all()),
        "another size of the transform": answer(pixels, weights, side + 1) != first,
        "a size that is larger by 256": answer(pixels, weights, side + 256) != first,
    }


def _convolution(
    k: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A kernel without a bias, and the four vectors of the batch norm behind it."""
    out = 3 + k % 3
    var = torch.rand(out)
    var[0] = 2e-5  # a channel that hardly varies: there ε counts
    return torch.randn(out, 3, 2, 2), torch.randn(out), var, torch.randn(out), torch.randn(out)


NO_BACKWARD = "The loss is right, and `.grad` is still empty: who carries it back?"
CHANGES = "can change, so it can't be a key. What holds the same and can't change?"
SUMS = "Sums and means do not notice the order, nor two changes that cancel."

CACHED = Program(
    id="07.1",
    title="A large batch in little memory",
    difficulty=3,
    minutes=15,
    asks="""
Fill the tower's `.grad` with the gradient of the loss of *all* pictures, with never more than
`chunk`
of them in the graph at once, and return the loss. `encode(part)` gives the features of some
pictures, `loss_of(features)` the loss of all features.
""",
    stub='''
def cached_step(encode, pictures: torch.Tensor, loss_of, chunk: int) -> torch.Tensor:
    """Fill .grad as `loss_of(encode(pictures)).backward()` would, `chunk` pictures at a time."""
    ...  # your lines here
''',
    solved='''
def cached_step(encode, pictures: torch.Tensor, loss_of, chunk: int) -> torch.Tensor:
    """Fill .grad as `loss_of(encode(pictures)).backward()` would, `chunk` pictures at a time."""
    parts = pictures.split(chunk)
    with torch.no_grad():
        features = torch.cat([encode(part) for part in parts])
    features.requires_grad_()
    loss = loss_of(features)
    loss.backward()
    for part, gradient in zip(parts, features.grad.split(chunk)):
        encode(part).backward(gradient)
    return loss.detach()
''',
    inputs=_tower_and_batch,
    use=use_cached,
    rounds=6,
    hint_text="""
Three passes: all features without a graph; the loss, whose gradient stops at the features; each
chunk
again with a graph, and `tensor.backward(gradient)` to start from a gradient instead of a loss.
""",
    remark="The loss sees nothing of a picture but its features: that is why it can be cut there.",
    mistakes=(
        Mistake(
            "all at once",
            "The gradient is right, and all pictures are in the graph at the same time.",
            """
def cached_step(encode, pictures, loss_of, chunk):
    loss = loss_of(encode(pictures))
    loss.backward()
    return loss.detach()
""",
        ),
        Mistake(
            "the features keep their graph",
            "In the first pass everything is in the graph, chunk by chunk, and stays there: the "
            "gradient reaches the tower twice.",
            {
                "    with torch.no_grad():\n        features = torch.cat([encode(part) for part in "
                "parts])\n    features.requires_grad_()": "    features = torch.cat([encode(part) "
                "for part in parts])\n    features.retain_grad()"
            },
        ),
        Mistake(
            "graphs wait for one another",
            "The gradient is right, but each chunk's graph waits until all chunks are through: at "
            "the end all pictures are in it. What of a chunk does the loss need?",
            """
def cached_step(encode, pictures, loss_of, chunk):
    loss = loss_of(torch.cat([encode(part) for part in pictures.split(chunk)]))
    loss.backward()
    return loss.detach()
""",
        ),
        Mistake(
            "chunk losses added up",
            "`loss_of` wants all features at once: chunks that are compared only among themselves "
            "were section 7's other gradient.",
            """
def cached_step(encode, pictures, loss_of, chunk):
    total = 0
    for part in pictures.split(chunk):
        loss = loss_of(encode(part))
        loss.backward()
        total += loss.detach()
    return total
""",
        ),
        Mistake(
            "the rest left out",
            "Whole chunks only: the pictures that are left over at the end don't reach the loss.",
            {
                "parts = pictures.split(chunk)": "parts = [part for part in pictures.split(chunk) "
                "if len(part) == chunk]"
            },
        ),
        Mistake(
            "only the loss, without a graph",
            NO_BACKWARD,
            """
def cached_step(encode, pictures, loss_of, chunk):
    with torch.no_grad():
        return loss_of(torch.cat([encode(part) for part in pictures.split(chunk)]))
""",
        ),
        Mistake(
            "only the loss, chunk by chunk",
            NO_BACKWARD,
            """
def cached_step(encode, pictures, loss_of, chunk):
    return loss_of(torch.cat([encode(part) for part in pictures.split(chunk)])).detach()
""",
        ),
        Mistake(
            "only the loss, all at once",
            NO_BACKWARD,
            """
def cached_step(encode, pictures, loss_of, chunk):
    return loss_of(encode(pictures)).detach()
""",
        ),
        Mistake(
            "features instead of their gradient",
            "The second pass starts from the features themselves. What did the loss say of them?",
            {"backward(gradient)": "backward(encode(part).detach())"},
        ),
        Mistake(
            "uphill",
            "Right in size, and in the wrong direction: where does a minus come in?",
            {"backward(gradient)": "backward(-gradient)"},
        ),
        Mistake(
            "no second pass",
            "The gradient stops at the features: nobody carries it on into the tower.",
            {
                "    for part, gradient in zip(parts, features.grad.split(chunk)):\n"
                "        encode(part).backward(gradient)\n": ""
            },
        ),
        Mistake(
            "ones instead of the gradient",
            "The second pass starts from ones: the gradient of the features is never used.",
            {"backward(gradient)": "sum().backward()"},
        ),
        Mistake(
            "averaged over the chunks",
            "You divide by the number of chunks. The loss has averaged already.",
            {"backward(gradient)": "backward(gradient / len(parts))"},
        ),
        Mistake(
            "only the last chunk",
            "Only one of the chunks is run again.",
            {
                "zip(parts, features.grad.split(chunk))": "[(parts[-1], "
                "features.grad.split(chunk)[-1])]"
            },
        ),
        Mistake(
            "gradients in another order",
            "Each chunk gets the gradient of another one.",
            {
                "zip(parts, features.grad.split(chunk))": "zip(parts, [*features.grad.split("
                "chunk)[1:], features.grad.split(chunk)[0]])"
                " if len(pictures) % chunk == 0 else zip(parts, features.grad.flip(0).split(chunk))"
            },
        ),
        Mistake(
            "encoded from the features",
            "Your step starts from the sum of the features' gradients: all pictures of a chunk get "
            "the same one.",
            {"backward(gradient)": "backward(gradient.mean(0).expand_as(gradient))"},
        ),
        Mistake(
            "the number of the chunks",
            "You make `chunk` parts. It says how many pictures are in a part.",
            {".split(chunk)": ".chunk(chunk)"},
        ),
        Mistake(
            "mean instead of a sum",
            "The second pass averages the products of features and gradient. The chain rule adds "
            "them up.",
            {"encode(part).backward(gradient)": "(encode(part) * gradient).mean().backward()"},
        ),
    ),
)

FACTOR = Program(
    id="07.2",
    title="The wrong factor",
    difficulty=1,
    minutes=6,
    asks="""
Does *some* factor turn an added-up gradient into the right one? Return the factor f that brings
f · `added` closest to `right`, and how much is left: the length of f · `added` − `right`, divided
by
that of `right`.
""",
    stub='''
def best_factor(added: torch.Tensor, right: torch.Tensor) -> tuple[float, float]:
    """(factor, what is left) for two gradients (numbers,)."""
    ...  # your lines here
''',
    solved='''
def best_factor(added: torch.Tensor, right: torch.Tensor) -> tuple[float, float]:
    """(factor, what is left) for two gradients (numbers,)."""
    factor = (added @ right) / (added @ added)
    left = (factor * added - right).norm() / right.norm()
    return factor.item(), left.item()
''',
    inputs=_two_gradients,
    hint_text="Of two vectors a and b, the factor that brings a closest to b is a·b / a·a.",
    remark="What is left is large in the notebook: the two gradients point in other directions.",
    mistakes=(
        Mistake(
            "divided by the other length",
            "You divide by `right · right`: that is the factor that brings `right` to `added`.",
            {"(added @ added)": "(right @ right)"},
        ),
        Mistake(
            "ratio of the lengths",
            "This makes both equally long. Closest is something else, unless they point the same "
            "way.",
            {"(added @ right) / (added @ added)": "right.norm() / added.norm()"},
        ),
        Mistake(
            "the cosine",
            "This is the cosine of the angle between them.",
            {"(added @ added)": "(added.norm() * right.norm())"},
        ),
        Mistake(
            "mean of the ratios",
            "You average the ratios of single entries: one that is nearly zero decides.",
            {"(added @ right) / (added @ added)": "(right / added).mean()"},
        ),
        Mistake(
            "upside down",
            "This factor is upside down.",
            {"(added @ right) / (added @ added)": "(added @ added) / (added @ right)"},
        ),
        Mistake(
            "not relative",
            "The factor is right; what is left is not divided by the length of `right`.",
            {" / right.norm()": ""},
        ),
        Mistake(
            "relative to the wrong one",
            "The factor is right; what is left is measured by the length of `added`.",
            {"/ right.norm()": "/ added.norm()"},
        ),
        Mistake(
            "left without the factor",
            "The factor is right; what is left was computed without it.",
            {"(factor * added - right)": "(added - right)"},
        ),
        Mistake(
            "squared length",
            "The factor is right; what is left is a squared length.",
            {".norm() / right.norm()": ".square().sum() / right.square().sum()"},
        ),
        Mistake(
            "ratio of the sums",
            "You divide sums of entries: plus and minus cancel in them, and a direction is lost.",
            {"(added @ right) / (added @ added)": "right.sum() / added.sum()"},
        ),
        Mistake(
            "the other one multiplied",
            "The factor is right; then it has multiplied `right` instead of `added`.",
            {"(factor * added - right)": "(added - factor * right)"},
        ),
        Mistake(
            "lengths compared",
            "The factor is right; what is left is one minus a cosine, or a difference of two "
            "lengths: the same number. How long is the difference vector itself?",
            {"(factor * added - right).norm()": "((factor * added).norm() - right.norm()).abs()"},
        ),
        Mistake(
            "one minus the cosine",
            "The factor is right; what is left is one minus a cosine. How long is the difference "
            "vector itself?",
            {
                "(factor * added - right).norm() / right.norm()": "1 - F.cosine_similarity(added, "
                "right, dim=0)"
            },
        ),
        Mistake(
            "sign dropped",
            "The two can point away from each other. Which sign has the factor then?",
            {"(added @ right) / (added @ added)": "((added @ right) / (added @ added)).abs()"},
        ),
        Mistake(
            "divided by the length once",
            "You divide by the length of `added` once. How often is it in f · `added`, and in your "
            "f?",
            {"(added @ added)": "added.norm()"},
        ),
        Mistake(
            "percent",
            "The factor is right; what is left is in percent. Asked is a share.",
            {" / right.norm()": " / right.norm() * 100"},
        ),
        Mistake(
            "the other way round",
            "Yours brings `right` closest to `added`. Asked is the other way round.",
            {
                "(added @ added)": "(right @ right)",
                "(factor * added - right).norm() / right.norm()": "(factor * right - added).norm() "
                "/ added.norm()",
            },
        ),
        Mistake(
            "absolute values",
            "The factor is right; what is left adds up absolute values. A length has squares and a "
            "root.",
            {
                "(factor * added - right).norm() / right.norm()": "(factor * added - right).abs()"
                ".sum() / right.abs().sum()"
            },
        ),
        Mistake(
            "in the other order",
            "Both numbers are right, in the other order.",
            {"factor.item(), left.item()": "left.item(), factor.item()"},
        ),
    ),
)

STALE = Program(
    id="07.3",
    title="A cache that went stale",
    difficulty=2,
    minutes=12,
    asks="""
What a cache holds was computed from pictures, frozen weights and the size of the transform.
Return a
key, anything that can be the key of a dictionary: the same if all of these are the same, and
another one if any of them has changed.
""",
    stub='''
def cache_key(pixels: torch.Tensor, weights: torch.Tensor, side: int):
    """A key for pictures (N, H, W) in bytes, weights, and the side of the transform in pixels."""
    ...  # your line here
''',
    solved='''
def cache_key(pixels: torch.Tensor, weights: torch.Tensor, side: int):
    """A key for pictures (N, H, W) in bytes, weights, and the side of the transform in pixels."""
    return pixels.numpy().tobytes(), weights.numpy().tobytes(), side
''',
    inputs=_for_a_key,
    use=use_key,
    hint_text="`tensor.numpy().tobytes()` has every number of a tensor, in their order.",
    remark="""
`mh.speed.cache_prefix` hashes all of these with SHA-256, and puts the hash into the file's name:
another stem is another file, and the old one is not touched.
""",
    mistakes=(
        Mistake(
            "weights left out",
            "After one more training step of the stem, yours would hand out the old features.",
            {", weights.numpy().tobytes()": ""},
        ),
        Mistake(
            "pictures left out",
            "Other pictures would get the features of these.",
            {"pixels.numpy().tobytes(), ": ""},
        ),
        Mistake(
            "transform left out",
            "The same pictures, at another size, would get the features of this one.",
            {"tobytes(), side": "tobytes()"},
        ),
        Mistake(
            "number of pictures only",
            "As many other pictures would get the features of these.",
            {"pixels.numpy().tobytes()": "len(pixels)"},
        ),
        Mistake(
            "shapes only",
            "Other pictures and other weights of the same shapes would get these features.",
            {
                "pixels.numpy().tobytes(), weights.numpy().tobytes()": "tuple(pixels.shape), "
                "tuple(weights.shape)"
            },
        ),
        Mistake(
            "sum of the pixels",
            "A sum does not notice the order, nor two changes that cancel.",
            {"pixels.numpy().tobytes()": "int(pixels.sum())"},
        ),
        Mistake(
            "sum of the weights",
            "A sum of weights does not notice that they have changed places.",
            {"weights.numpy().tobytes()": "weights.sum().item()"},
        ),
        Mistake(
            "weights rounded",
            "A small step of the weights is rounded away, and its features stay the old ones.",
            {"weights.numpy().tobytes()": "tuple(weights.round(decimals=1).tolist())"},
        ),
        Mistake(
            "identity of the tensors",
            "`id` of a tensor, and so its `hash`, is the place in memory: the same numbers "
            "elsewhere get another key, and a tensor that was changed in place keeps its own.",
            {
                "pixels.numpy().tobytes(), weights.numpy().tobytes()": "id(pixels), id(weights)",
            },
        ),
        Mistake(
            "first picture only",
            "Only the first picture is in the key.",
            {"pixels.numpy()": "pixels[0].numpy()"},
        ),
        Mistake(
            "side in one byte",
            "A byte ends at 255 and begins anew: what are 32 and 288 to it?",
            {"tobytes(), side": "tobytes(), side % 256"},
        ),
        Mistake(
            "text without separators",
            "Numbers are written one after the other: where does one end, and the next begin?",
            """
def cache_key(pixels, weights, side):
    numbers = [*pixels.flatten().tolist(), *weights.flatten().tolist(), side]
    return "".join(map(str, numbers))
""",
        ),
        Mistake(
            "sums of both",
            SUMS,
            {
                "pixels.numpy().tobytes(), weights.numpy().tobytes()": "int(pixels.sum()), "
                "weights.sum().item()"
            },
        ),
        Mistake(
            "sum of each picture",
            SUMS,
            {"pixels.numpy().tobytes()": "tuple(pixels.sum((1, 2)).tolist())"},
        ),
        Mistake(
            "sums of rows, columns and pictures",
            SUMS,
            {
                "pixels.numpy().tobytes()": "tuple(pixels.sum((0, 1)).tolist()), "
                "tuple(pixels.sum((0, 2)).tolist()), tuple(pixels.sum((1, 2)).tolist())"
            },
        ),
        Mistake(
            "places lost",
            "Yours sees which numbers there are, and not where: others have the same ones in other "
            "places.",
            {
                "pixels.numpy().tobytes(), weights.numpy().tobytes()": "tuple(sorted("
                "pixels.flatten().tolist())), tuple(sorted(weights.tolist()))"
            },
        ),
        Mistake(
            "place in memory",
            "`data_ptr` is the place in memory: the same numbers elsewhere get another key, and "
            "what is changed in place keeps its own.",
            {
                "pixels.numpy().tobytes(), weights.numpy().tobytes()": "pixels.data_ptr(), "
                "weights.data_ptr()"
            },
        ),
        Mistake(
            "another key each time",
            "Called twice with the same arguments, it gives two keys.",
            {"pixels.numpy().tobytes(), weights.numpy().tobytes(), side": "torch.rand(()).item()"},
        ),
        Mistake(
            "always the same key",
            "This key never changes. What may change?",
            {"pixels.numpy().tobytes(), weights.numpy().tobytes(), side": '"features"'},
        ),
        Mistake(
            "a list",
            f"A list {CHANGES}",
            {"pixels.numpy().tobytes(), weights": "pixels.tolist(), weights"},
        ),
        Mistake(
            "a dictionary",
            f"A dictionary {CHANGES}",
            {
                "pixels.numpy().tobytes(), weights.numpy().tobytes(), side": '{"pixels": '
                'pixels.numpy().tobytes(), "weights": weights.numpy().tobytes(), "side": side}'
            },
        ),
        Mistake(
            "an array",
            f"An array {CHANGES}",
            {"pixels.numpy().tobytes(), weights": "pixels.numpy(), weights"},
        ),
        Mistake(
            "pictures as a set",
            "As a set, the pictures have no order; the features that are kept have one.",
            {"pixels.numpy().tobytes()": "frozenset(p.numpy().tobytes() for p in pixels)"},
        ),
        Mistake(
            "the tensors themselves",
            "Two tensors with the same numbers are two keys for a dictionary, and `==` of them is "
            "a tensor again. What has all numbers of a tensor, and can be compared as a whole?",
            {"pixels.numpy().tobytes(), weights.numpy().tobytes()": "pixels, weights"},
        ),
        Mistake(
            "as text",
            "Printed, a large tensor is shortened: what changes in its middle is not seen.",
            {
                "pixels.numpy().tobytes(), weights.numpy().tobytes()": "str(pixels), str(weights)",
            },
        ),
    ),
)

FOLD = Program(
    id="07.4",
    title="Fold a batch norm away",
    difficulty=2,
    minutes=12,
    asks="""
A convolution without a bias is followed by a frozen batch norm: y = (conv(x) − mean) / √(var + ε) ·
gamma + beta, with ε = 1e-5. Return the kernel and the bias of the one convolution that does both.
""",
    stub='''
def fold_batch_norm(
    kernel: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    gamma: torch.Tensor,
    beta: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(kernel, bias) from a kernel (out, in, h, w) and four vectors (out,)."""
    ...  # your lines here
''',
    solved='''
def fold_batch_norm(
    kernel: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    gamma: torch.Tensor,
    beta: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(kernel, bias) from a kernel (out, in, h, w) and four vectors (out,)."""
    factor = gamma / (var + 1e-5).sqrt()
    return kernel * factor[:, None, None, None], beta - mean * factor
''',
    inputs=_convolution,
    hint_text="Sort the formula by what multiplies conv(x), and by what is left without x.",
    remark="""
Two steps that only multiply and add make one such step, so a *frozen* batch norm can always be
folded. In training mode it takes mean and variance from the batch: then they are no constants, and
there is nothing to fold.
""",
    mistakes=(
        Mistake(
            "no square root",
            "You divide by the variance. The formula divides by its root.",
            {".sqrt()": ""},
        ),
        Mistake(
            "ε left out",
            "A channel that hardly varies gets too large a factor: what is added to the variance?",
            {"(var + 1e-5)": "var"},
        ),
        Mistake(
            "ε outside the root",
            "ε is added to the variance, under the root.",
            {"(var + 1e-5).sqrt()": "(var.sqrt() + 1e-5)"},
        ),
        Mistake(
            "gamma left out",
            "The factor lacks gamma.",
            {"gamma / (var": "1 / (var"},
        ),
        Mistake(
            "beta left out",
            "What is added at the end is missing from the bias.",
            {"beta - mean * factor": "-mean * factor"},
        ),
        Mistake(
            "mean left out",
            "The mean is subtracted before the factor: it leaves something in the bias.",
            {"beta - mean * factor": "beta"},
        ),
        Mistake(
            "mean not scaled",
            "The mean is subtracted *before* the division, so the factor reaches it, too.",
            {"mean * factor": "mean"},
        ),
        Mistake(
            "mean added",
            "The mean is subtracted.",
            {"beta - mean": "beta + mean"},
        ),
        Mistake(
            "factor along the inputs",
            "The factor belongs to the *output* channels: the kernel's first axis.",
            {"factor[:, None, None, None]": "factor[None, :, None, None]"},
        ),
        Mistake(
            "kernel not scaled",
            "The bias is right, and the kernel is still the old one.",
            {"kernel * factor[:, None, None, None]": "kernel"},
        ),
        Mistake(
            "beta scaled, too",
            "beta is added after the factor, and not multiplied by it.",
            {"beta - mean * factor": "(beta - mean) * factor"},
        ),
        Mistake(
            "kernel changed in place",
            "The result is right, and the old kernel is gone: unfolding would need it.",
            {
                "return kernel * factor[:, None, None, None]": "kernel *= "
                "factor[:, None, None, None]\n    return kernel"
            },
        ),
        Mistake(
            "gamma left out of the bias",
            "The kernel is right. In the formula, gamma multiplies what the mean leaves, too.",
            {"beta - mean * factor": "beta - mean / (var + 1e-5).sqrt()"},
        ),
        Mistake(
            "root multiplied",
            "The root divides.",
            {"gamma / (var": "gamma * (var"},
        ),
        Mistake(
            "no root in the bias",
            "The kernel is right. In the bias, what divides the mean?",
            {"beta - mean * factor": "beta - mean * gamma"},
        ),
        Mistake(
            "ε left out of the bias",
            "The kernel is right. In the bias, a channel that hardly varies gets too much: what is "
            "added to the variance?",
            {"beta - mean * factor": "beta - mean * gamma / var.sqrt()"},
        ),
        Mistake(
            "gamma and beta exchanged",
            "gamma and beta have changed places: which of the two multiplies?",
            {"gamma / (var": "beta / (var", "beta - mean": "gamma - mean"},
        ),
        Mistake(
            "bias of the wrong sign",
            "The kernel is right, and the bias has the wrong sign.",
            {"beta - mean * factor": "mean * factor - beta"},
        ),
        Mistake(
            "kernel divided",
            "The bias is right. What multiplies conv(x) multiplies the kernel.",
            {"kernel * factor[": "kernel / factor["},
        ),
    ),
)

LEVERS = Question(
    id="07.5",
    title="Which lever is still exact?",
    difficulty=2,
    minutes=6,
    asks="""
You want the *same* gradient in less time or memory. Does each of these give it (up to the
rounding of
fp32), or another one?
""",
    stub="""
answer = {
    "four batches of 8 added up, for one of 32": "?",
    "GradCache in chunks of 8, for one of 32": "?",
    "folding the frozen branches": "?",
    "captions computed once, text tower frozen": "?",
    "captions computed once, text tower trained": "?",
    "other processes' features gathered as mere numbers": "?",
}
""",
    right={
        "four batches of 8 added up, for one of 32": "another",
        "GradCache in chunks of 8, for one of 32": "the same",
        "folding the frozen branches": "the same",
        "captions computed once, text tower frozen": "the same",
        "captions computed once, text tower trained": "another",
        "other processes' features gathered as mere numbers": "another",
    },
    choices={"the same": "up to rounding", "another": "it points elsewhere, or has another size"},
    hint_text="All but one have a section that ends with a relative difference. For that one: what "
    "has changed in the text tower after the first step?",
    remark="""
Each time, three questions decide. Does every picture still meet the same wrong captions? Are all
features those of the present weights? Does every part of the gradient arrive? Where you can't
answer one, measure: record both steps, and take the difference.
""",
    mistakes=(
        Wrong(
            "added-up batches thought to be exact",
            "In a batch of 8 each picture is told from 7 wrong captions. And in one of 32?",
            "the same",
            "four batches of 8 added up, for one of 32",
        ),
        Wrong(
            "GradCache thought to be adding up",
            "Its loss is that of all 32 features; what comes in chunks is the way through the "
            "tower.",
            "another",
            "GradCache in chunks of 8, for one of 32",
        ),
        Wrong(
            "folding thought to approximate",
            "A sum of convolutions *is* a convolution. Section 2 measured it in float64.",
            "another",
            "folding the frozen branches",
        ),
        Wrong(
            "constant captions thought to change",
            "What changes in a frozen tower from one epoch to the next?",
            "another",
            "captions computed once, text tower frozen",
        ),
        Wrong(
            "trained captions thought to be constant",
            "After the first step, are the stored captions still those of the tower?",
            "the same",
            "captions computed once, text tower trained",
        ),
        Wrong(
            "gathering numbers thought to be enough",
            "The loss is right. What does a picture's row do to the *other* processes' losses, and "
            "who tells it?",
            "the same",
            "other processes' features gathered as mere numbers",
        ),
    ),
)

EXERCISES = (CACHED, FACTOR, STALE, FOLD, LEVERS)
