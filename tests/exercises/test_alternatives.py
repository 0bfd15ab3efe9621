"""Whoever goes another way and arrives is right: a second solution of each program."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict, deque

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_catalogue import PROGRAMS
from torch import nn

import mclip_helpers as mh


def search(pictures, text, k):
    cosines = F.cosine_similarity(pictures, text[None], dim=1).numpy()
    return np.argsort(-cosines)[:k]


def classify(pictures, labels, scale):
    scores = [[scale * F.cosine_similarity(p, q, dim=0).item() for q in labels] for p in pictures]
    return [[math.exp(s) / sum(map(math.exp, row)) for s in row] for row in scores]


def on_white(picture):
    white = torch.ones(3, *picture.shape[1:])
    return torch.lerp(white, picture[:3], picture[3:].expand(3, -1, -1))


def class_vectors(texts):
    mean = (texts / texts.norm(dim=-1, keepdim=True)).sum(1)
    return mean / mean.norm(dim=-1, keepdim=True)


def without_gap(pictures, texts):
    both = []
    for side in (pictures, texts):
        centred = side - torch.stack([side[:, d].mean() for d in range(side.shape[1])])
        both.append(centred / centred.square().sum(-1, keepdim=True).sqrt())
    return both


class LoRA(nn.Module):
    """With a copy of the base, and buffers instead of parameters for what is frozen."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.register_buffer("W", base.weight.detach().clone())
        self.register_buffer("b", base.bias.detach().clone())
        self.A = nn.Parameter(torch.randn(rank, base.in_features) / rank)
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))
        self.alpha, self.rank = alpha, rank

    def forward(self, x):
        return F.linear(x, self.W + self.alpha / self.rank * self.B @ self.A, self.b)


def merge(W, A, B, alpha):
    return torch.addmm(W, B, A, alpha=alpha / B.shape[1])


def highest_rank(layers, budget):
    rank = 0
    while sum((rank + 1) * a + (rank + 1) * b for a, b in layers) <= budget:
        rank += 1
    return rank


def dead_layers(grads):
    alive = {n[:-7] for n, g in grads.items() if n[-1] == "B" and g is not None and g.norm() > 0}
    return sorted({name.rsplit(".", 1)[0] for name in grads} - alive)


def contrastive(image_features, text_features, log_scale):
    z = torch.exp(log_scale) * F.normalize(image_features) @ F.normalize(text_features).T
    return -(z.log_softmax(1).diagonal() + z.log_softmax(0).diagonal()).mean() / 2


def without_softmax(z):
    n, total = len(z), z.new_zeros(())
    for i in range(n):
        for line in (z[i], z[:, i]):
            total = total + line.max() + (line - line.max()).exp().sum().log() - z[i, i]
    return total / (2 * n)


def gradient(z):
    n = len(z)
    G = torch.zeros(n, n)
    for i in range(n):
        for j in range(n):
            row, column = z[i].exp() / z[i].exp().sum(), z[:, j].exp() / z[:, j].exp().sum()
            G[i, j] = (row[j] + column[i]) / 2 - float(i == j)
    return G / n


def theta_gradient(z, G):
    return np.einsum("ij,ij->", z.numpy(), G.numpy())


def through_normalising(g, x):
    x = x.double().requires_grad_()
    F.normalize(x, dim=1).backward(g.double())
    return x.grad


def forgiving(z, groups):
    n = len(z)
    loss = 0
    for i in range(n):
        keep = [j for j in range(n) if j == i or groups[j] != groups[i]]
        own = keep.index(i)
        loss = loss - z[i, keep].log_softmax(0)[own] - z[keep, i].log_softmax(0)[own]
    return loss / (2 * n)


def lora_gradients(A, B, x, G, alpha):
    A, B = A.clone().requires_grad_(), B.clone().requires_grad_()
    (alpha / len(A) * B @ A @ x * G).sum().backward()
    return A.grad, B.grad


def ways(node, end):
    order, seen, waiting = [], set(), [(node, False)]
    while waiting:  # topological, without recursion
        here, done = waiting.pop()
        if done:
            order.append(here)
        elif here is not None and here not in seen:
            seen.add(here)
            waiting += [(here, True), *((behind, False) for behind, _ in here.next_functions)]
    count = Counter({node: 1})
    for here in reversed(order):
        for behind, _ in here.next_functions:
            count[behind] += count[here]
    return count[end]


def path(loss, weight):
    before, waiting = {loss: None}, deque([loss])
    while waiting:
        node = waiting.popleft()
        if getattr(node, "variable", None) is weight:
            names = []
            while node is not None:
                names.insert(0, type(node).__name__)
                node = before[node]
            return tuple(names)
        for behind, _ in node.next_functions:
            if behind is not None and behind not in before:
                before[behind] = node
                waiting.append(behind)


def adamw(w, g, m, v, step):
    w = w * (1 - 0.1 * 0.01)
    m, v = torch.lerp(m, g, 0.1), v.mul(0.999).addcmul(g, g, value=0.001)
    return w - 0.1 / (1 - 0.9**step) * m / ((v / (1 - 0.999**step)).sqrt() + 1e-8), m, v


def train_step(model, optimizer, images, tokens):
    u, v = F.normalize(model.encode_image(images)), F.normalize(model.encode_text(tokens))
    z, labels = model.logit_scale.exp() * u @ v.T, torch.arange(len(u))
    loss = (F.cross_entropy(z, labels) + F.cross_entropy(z.T, labels)) / 2
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()  # at the end, for the next step
    return loss


def recall_at_k(similarity, k):
    hits = 0
    for i, row in enumerate(similarity.tolist()):
        hits += sum(x >= row[i] for j, x in enumerate(row) if j != i) < k
    return hits / len(similarity)


def reported(runs):
    return sorted(runs, key=lambda run: run["val"])[-1]["test"]


def interval(old, new, drawn):
    each = np.sort((new[drawn].mean(1) - old[drawn].mean(1)).numpy())
    return np.percentile(each, [2.5, 97.5])


def compared(runs):
    ways = defaultdict(list)
    for run in runs:
        ways[run["way"]].append((run["val"], run["test"]))
    return {way: max(pairs)[1] for way, pairs in ways.items()}


def directions(delta, share):
    squares = np.linalg.svd(delta.numpy(), compute_uv=False).astype(float) ** 2
    count, reached = 0, 0.0
    while reached < share * squares.sum():
        reached += squares[count]
        count += 1
    return count


def cached_step(encode, pictures, loss_of, chunk):
    starts = range(0, len(pictures), chunk)
    with torch.no_grad():
        leaf = torch.cat([encode(pictures[i : i + chunk]) for i in starts]).requires_grad_()
    loss = loss_of(leaf)
    (gradient,) = torch.autograd.grad(loss, leaf)
    for i in starts:
        (encode(pictures[i : i + chunk]) * gradient[i : i + chunk]).sum().backward()
    return loss.item()


def best_factor(added, right):
    factor = torch.linalg.lstsq(added[:, None], right[:, None]).solution.item()
    return factor, math.dist(factor * added, right) / right.norm()


def cache_key(pixels, weights, side):
    hashed = hashlib.sha256(str(side).encode())
    hashed.update(repr((pixels.tolist(), weights.tolist())).encode())
    return hashed.hexdigest()


def folded(kernel, mean, var, gamma, beta):
    root = torch.sqrt(var + 1e-5)
    scaled = torch.einsum("oihw,o->oihw", kernel, gamma / root)
    return scaled, (0 - mean) / root * gamma + beta


def worst_cosine(ours, theirs):
    return (F.normalize(ours) * F.normalize(theirs)).sum(1).amin()


def to_tensor(pixels, mean, std):
    picture = pixels.numpy().transpose(2, 0, 1) / 255
    return (picture - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]


ALTERNATIVES = {
    "01.1": search,
    "01.2": classify,
    "01.3": on_white,
    "01.4": class_vectors,
    "01.5": without_gap,
    "02.1": LoRA,
    "02.3": merge,
    "02.4": highest_rank,
    "02.5": dead_layers,
    "03.1": contrastive,
    "03.2": without_softmax,
    "03.3": gradient,
    "03.4": theta_gradient,
    "03.5": through_normalising,
    "03.6": forgiving,
    "04.2": lora_gradients,
    "04.3": ways,
    "04.4": path,
    "04.6": adamw,
    "05.1": train_step,
    "05.2": recall_at_k,
    "05.3": reported,
    "06.2": interval,
    "06.3": compared,
    "06.4": directions,
    "07.1": cached_step,
    "07.2": best_factor,
    "07.3": cache_key,
    "07.4": folded,
    "08.1": worst_cosine,
    "08.2": to_tensor,
}


@pytest.mark.parametrize("id", ALTERNATIVES)
def test_another_solution_is_right(id: str):
    found = mh.exercise(id).finding(ALTERNATIVES[id])
    assert found.is_right, found


def test_there_is_one_for_each_program():
    assert list(ALTERNATIVES) == [program.id for program in PROGRAMS]
