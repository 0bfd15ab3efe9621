"""Exercises of notebook 04: the graph behind a loss, and what it does to A and B."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.autograd.graph import Node

from .programs import Mistake, Program
from .questions import Question, Wrong


def _doublings(k: int) -> tuple[Node, Node]:
    """A graph in which the number of paths grows at each step, and the node at its end.

    In the last run there are 40 doublings: nobody follows 2⁴⁰ paths one by one.
    """
    s = torch.ones(1, requires_grad=True)
    other = torch.ones(1, requires_grad=True)
    y = 2 * s * other if k % 2 else other * s  # the 2 wants no gradient: None stands for it
    for i in range(40 if k == 5 else k):
        y = y.exp() + y.sin() if i % 2 else y * y + other + s
    if k == 0:
        y = s.exp()
    node = y.grad_fn
    assert node is not None
    return node, _end_of(node, s)


def _end_of(node: Node, weight: torch.Tensor) -> Node:
    waiting, seen = [node], set()
    while waiting:
        here = waiting.pop()
        if getattr(here, "variable", None) is weight:
            return here
        if here not in seen:
            seen.add(here)
            waiting += [behind for behind, _ in here.next_functions if behind is not None]
    raise AssertionError("no path")


def _shortcuts(k: int) -> tuple[Node, torch.Tensor]:
    """A graph with blocks and shortcuts around them, and one of its two weights."""
    first, second = (torch.ones(2, requires_grad=True) for _ in range(2))
    h = 2 * first
    for _ in range(k):
        h = h.exp().sin() + h  # the block comes first, the shortcut second
    h = 3 * (h * second).sigmoid()  # the 3 wants no gradient: None stands for it
    loss = h.sum() if k % 2 else h.mean().log()
    assert loss.grad_fn is not None
    return loss.grad_fn, first if k != 1 else second


def use_path(answer: Callable, loss: Node, weight: torch.Tensor) -> object:
    """The names on a path, without the part that only some of them have ("torch::autograd::")."""
    names = answer(loss, weight)
    if isinstance(names, list | tuple):
        return [n.rpartition("::")[2] if isinstance(n, str) else type(n) for n in names]
    return names


def _lora_step(
    k: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """A (rank, in), B (out, rank), x (in, 1), G (out, 1), α; B is zero in run 1."""
    rank, width, out = 2, 2 + k, 3 + k
    B = torch.randn(out, rank) * (k != 1)
    return torch.randn(rank, width), B, torch.randn(width, 1), torch.randn(out, 1), 3.0 + k


def _adamw(k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """w, g, m, v and the number of the step; at step 1 both averages are zero."""
    g = torch.tensor([0.5, -1e-8, 2.0])[: 2 + k % 2] * (1 + k)
    if k < 2:
        return torch.ones_like(g), g, torch.zeros_like(g), torch.zeros_like(g), 1
    return torch.randn_like(g), g, torch.randn_like(g) / 2, torch.rand_like(g), 1 + k


BEGINNINGS = Question(
    id="04.1",
    title="Other beginnings",
    difficulty=1,
    minutes=5,
    asks="""
LoRA starts with A random and B zero. For three other beginnings: which gradients are exactly zero
at
the first step ("zero"), and which are not ("some")? Answer with a pair, first A's, then B's.
""",
    stub="""
answer = {  # beginning: (gradient of A, gradient of B)
    "A zero, B random": ("?", "?"),
    "both random": ("?", "?"),
    "both zero": ("?", "?"),
}
""",
    right={
        "A zero, B random": ("some", "zero"),
        "both random": ("some", "some"),
        "both zero": ("zero", "zero"),
    },
    choices={"zero": "the gradient is there, and all zeros", "some": "it is not all zeros"},
    hint_text="Put zeros into the two formulas of section 5.",
    remark="""
A zero, B random is LoRA's own beginning with the roles exchanged, and works as well. Both random
changes the model before it has learned anything. With both at zero each waits for the other, for
ever.
""",
    mistakes=(
        Wrong(
            "the zero matrix thought to get zero",
            "You give zero to the matrix that *is* zero. Which matrix is a factor of A's gradient?",
            ("zero", "some"),
            "A zero, B random",
        ),
        Wrong(
            "exchanged: nothing thought to move",
            "One of the two gradients has the other, random matrix as its factor.",
            ("zero", "zero"),
            "A zero, B random",
        ),
        Wrong(
            "exchanged: both thought to move",
            "One of the two matrices is zero, and it is a factor of a gradient. Of whose?",
            ("some", "some"),
            "A zero, B random",
        ),
        Wrong(
            "both random thought to be LoRA's own",
            "That is what LoRA's own beginning does. Here no factor is zero.",
            ("zero", "some"),
            "both random",
        ),
        Wrong(
            "both random: B thought to get none",
            "B's gradient has A as a factor. Is it zero?",
            ("some", "zero"),
            "both random",
        ),
        Wrong(
            "both random thought to be stuck",
            "Neither matrix is zero. Which factor should be?",
            ("zero", "zero"),
            "both random",
        ),
        Wrong(
            "both zero thought to start B",
            "B's gradient has A as a factor, and A is zero here, too.",
            ("zero", "some"),
            "both zero",
        ),
        Wrong(
            "both zero thought to start A",
            "A's gradient has B as a factor.",
            ("some", "zero"),
            "both zero",
        ),
        Wrong(
            "both zero thought to be free",
            "Each of the two gradients has the *other* matrix as a factor.",
            ("some", "some"),
            "both zero",
        ),
    ),
)

BY_HAND = Program(
    id="04.2",
    title="The gradient of A and of B, by hand",
    difficulty=2,
    minutes=15,
    asks="""
For y = W x + (α/r) B A x, the gradient G has arrived at y. Return the gradients of A and of B, with
the shapes of A and B.
""",
    stub='''
def lora_gradients(
    A: torch.Tensor, B: torch.Tensor, x: torch.Tensor, G: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(∂L/∂A, ∂L/∂B) for A (r, in), B (out, r), x (in, 1) and G = ∂L/∂y (out, 1)."""
    ...  # your lines here
''',
    solved='''
def lora_gradients(
    A: torch.Tensor, B: torch.Tensor, x: torch.Tensor, G: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(∂L/∂A, ∂L/∂B) for A (r, in), B (out, r), x (in, 1) and G = ∂L/∂y (out, 1)."""
    factor = alpha / len(A)
    return factor * B.T @ G @ x.T, factor * G @ (A @ x).T
''',
    inputs=_lora_step,
    hint_text="""
In y = M x, the gradient of M is G xᵀ, and that of x is Mᵀ G. Use it for B with the input A x, and
then for A with the input x.
""",
    remark="A's gradient has B as a factor: with B = 0 it is exactly zero.",
    mistakes=(
        Mistake(
            "no α / r",
            "The pattern is right, and its size is not: what stands in front of B A?",
            {"alpha / len(A)": "1.0"},
        ),
        Mistake(
            "α without the rank",
            "Your factor is α. In the formula it is divided by something.",
            {"alpha / len(A)": "alpha"},
        ),
        Mistake(
            "factor upside down",
            "Your factor is upside down.",
            {"alpha / len(A)": "len(A) / alpha"},
        ),
        Mistake(
            "factor squared",
            "The factor stands once on the way from y to either matrix.",
            {"alpha / len(A)": "(alpha / len(A)) ** 2"},
        ),
        Mistake(
            "factor in one of them only",
            "One of the two has the factor, the other has not: both sit behind it.",
            {"factor * B.T": "B.T"},
        ),
        Mistake(
            "B first",
            "Right, in the other order: A's gradient comes first.",
            """
def lora_gradients(A, B, x, G, alpha):
    factor = alpha / len(A)
    return factor * G @ (A @ x).T, factor * B.T @ G @ x.T
""",
        ),
        Mistake(
            "B forgotten in A's gradient",
            "A's gradient should pass through B on its way back from y.",
            {"B.T @ G @ x.T": "torch.ones_like(B).T @ G @ x.T"},
        ),
        Mistake(
            "A forgotten in B's gradient",
            "What reaches B in the forward pass is not x.",
            {"G @ (A @ x).T": "G @ x.T @ torch.ones_like(A).T"},
        ),
        Mistake(
            "the sign",
            "These are steps *against* the gradient.",
            {"alpha / len(A)": "-alpha / len(A)"},
        ),
        Mistake(
            "gradient of B transposed",
            "B's gradient has the numbers in the right pattern, and the shape of Bᵀ.",
            {"factor * G @ (A @ x).T": "factor * (A @ x) @ G.T"},
        ),
    ),
)

WAYS = Program(
    id="04.3",
    title="How many ways?",
    difficulty=2,
    minutes=15,
    asks="""
Count the different paths from `node` to `end`. In one of the graphs the number of paths doubles at
each of 40 steps: a function that follows each path by itself does not come back.
""",
    stub='''
def ways(node: torch.autograd.graph.Node, end: torch.autograd.graph.Node) -> int:
    """How many different paths lead from `node` to `end`."""
    ...  # your lines here
''',
    solved='''
def ways(node: torch.autograd.graph.Node, end: torch.autograd.graph.Node) -> int:
    """How many different paths lead from `node` to `end`."""
    known = {end: 1, None: 0}

    def count(node: torch.autograd.graph.Node | None) -> int:
        if node not in known:
            known[node] = sum(count(behind) for behind, _ in node.next_functions)
        return known[node]

    return count(node)
''',
    inputs=_doublings,
    rounds=6,
    limit=3.0,
    hint_text="""
The number of paths from a node is the sum of the numbers from the nodes behind it; from `end` it is
1. Keep what you have computed in a dictionary.
""",
    remark="""
`backward()` does the same: it waits at each node until all gradients from above have arrived, adds
them up, and passes on the sum once. So the chain rule's sum over all paths costs one visit to each
node. (In a graph a thousand nodes deep, use a list of nodes that wait instead of recursion.)
""",
    mistakes=(
        Mistake(
            "nodes counted",
            "You count the nodes on the way. A node can lie on many paths.",
            """
def ways(node, end):
    seen, waiting = set(), [node]
    while waiting:
        here = waiting.pop()
        if here is not None and here not in seen:
            seen.add(here)
            waiting += [behind for behind, _ in here.next_functions]
    return len(seen)
""",
        ),
        Mistake(
            "each node visited once",
            "You never enter a node twice, so you find one path, or as many as `end` has doors.",
            """
def ways(node, end):
    seen, waiting, count = set(), [node], 0
    while waiting:
        here = waiting.pop()
        if here is end:
            count += 1
        elif here is not None and here not in seen:
            seen.add(here)
            waiting += [behind for behind, _ in here.next_functions]
    return count
""",
        ),
        Mistake(
            "whether there is a path",
            "This says whether there is a path. How many are there?",
            {"sum(count(behind)": "max(count(behind)"},
        ),
        Mistake(
            "all ends counted",
            "You count the paths to *any* end. The other weight has paths of its own.",
            {
                "known = {end: 1, None: 0}": "known = {None: 0}",
                "sum(count(behind) for behind, _ in node.next_functions)": "sum("
                "count(behind) for behind, _ in node.next_functions) or 1",
            },
        ),
        Mistake(
            "both inputs taken for one",
            "Where a node has the same tensor for both inputs, you count one path: y · y has two.",
            {
                "for behind, _ in node.next_functions": "for behind in "
                "{b for b, _ in node.next_functions}"
            },
        ),
        Mistake(
            "first input only",
            "You follow the first input of each node. What of the others?",
            {"in node.next_functions": "in node.next_functions[:1]"},
        ),
        Mistake(
            "last input only",
            "You follow the last input of each node. What of the others?",
            {"in node.next_functions": "in node.next_functions[-1:]"},
        ),
        Mistake(
            "branches multiplied",
            "You multiply the numbers of the branches. A path takes one branch *or* the other.",
            {
                "sum(count(behind) for behind, _ in node.next_functions)": "math.prod("
                "count(behind) for behind, _ in node.next_functions) if node.next_functions else 0",
            },
        ),
        Mistake(
            "edges counted",
            "You count one more at each node: that counts steps, not paths.",
            {"sum(count(behind)": "1 + sum(count(behind)"},
        ),
    ),
)

PATH = Program(
    id="04.4",
    title="The path of a gradient",
    difficulty=3,
    minutes=15,
    asks="""
Find the shortest way on which the gradient travels from the loss to a weight, and return the names
of the nodes in this order, from the loss's own node to the `AccumulateGrad` that holds the weight.
`node.name()` is the name of a node.
""",
    stub='''
def shortest_path(loss: torch.autograd.graph.Node, weight: torch.Tensor) -> list[str]:
    """The names of the nodes on the shortest path from `loss`, a grad_fn, to `weight`."""
    ...  # your lines here
''',
    solved='''
def shortest_path(loss: torch.autograd.graph.Node, weight: torch.Tensor) -> list[str]:
    """The names of the nodes on the shortest path from `loss`, a grad_fn, to `weight`."""
    waiting = [[loss]]
    for nodes in waiting:  # grows while it is read: all paths of one length before longer ones
        if getattr(nodes[-1], "variable", None) is weight:
            return [node.name() for node in nodes]
        behind = [node for node, _ in nodes[-1].next_functions if node is not None]
        waiting += [[*nodes, node] for node in behind]
''',
    inputs=_shortcuts,
    use=use_path,
    rounds=6,
    limit=3.0,
    hint_text="""
Keep a list of paths that begin at the loss, and make each longer by one node, the shortest first.
Only the last node knows its weight: `node.variable`.
""",
    remark="A shortest path takes every shortcut: what happens inside the blocks, it does not see.",
    mistakes=(
        Mistake(
            "the first way found",
            "This is a way, and not the shortest: you follow one branch to its end before you "
            "look at the others.",
            {
                "for nodes in waiting:": "while waiting:\n        nodes = waiting.pop(0)",
                "waiting += [[*nodes, node] for node in behind]": "waiting = "
                "[[*nodes, node] for node in behind] + waiting",
            },
        ),
        Mistake(
            "backwards",
            "The right nodes, from the weight to the loss: the gradient travels the other way.",
            {"for node in nodes]": "for node in reversed(nodes)]"},
        ),
        Mistake(
            "the end is missing",
            "The last node is missing: the one that holds the weight.",
            {"for node in nodes]": "for node in nodes[:-1]]"},
        ),
        Mistake(
            "the beginning is missing",
            "The first node is missing: the loss's own.",
            {"for node in nodes]": "for node in nodes[1:]]"},
        ),
        Mistake(
            "any weight",
            "You stop at the first weight that you meet. There is another one in this graph.",
            {'getattr(nodes[-1], "variable", None) is weight': 'hasattr(nodes[-1], "variable")'},
        ),
        Mistake(
            "its length",
            "This is how long the path is. Which nodes are on it?",
            {"[node.name() for node in nodes]": "len(nodes)"},
        ),
        Mistake(
            "the nodes themselves",
            "These are the nodes. Asked are their names.",
            {"node.name() for": "node for"},
        ),
        Mistake(
            "each operation once",
            "A name that occurs twice on the path is in your list once.",
            {"[node.name() for node in nodes]": "list(dict.fromkeys(n.name() for n in nodes))"},
        ),
    ),
)

DIAGNOSES = Question(
    id="04.5",
    title="Three broken models",
    difficulty=3,
    minutes=15,
    asks="""
Anna, Ben and Carla each wrote a training step (section 8). All three run, and each loss falls.
Yet in
each something does not learn. Decide from the recordings alone, before you read their code: what is
wrong?
""",
    stub='answer = {"Anna": "?", "Ben": "?", "Carla": "?"}',
    right={"Anna": "detached", "Ben": "never called", "Carla": "not in the optimizer"},
    choices={
        "detached": "a result was cut off from the graph that leads to its weights",
        "never called": "the module is bypassed, so its adapter takes no part",
        "not in the optimizer": "the gradient arrives, and nobody applies it",
        "frozen": "the parameters don't want a gradient",
        "first step": "the gradient is exactly zero only because B still is",
    },
    hint_text="""
How many matrices of which tower are *not reached*? All of a tower, or one adapter? And who is
reached, and still stands where it began?
""",
    remark="""
Each loss falls because the other adapters learn. So a falling loss shows none of these mistakes;
the verdicts after one optimizer step, and what the optimizer was given, show all three.
""",
    mistakes=(
        Wrong(
            "Anna: a whole tower taken for one layer",
            "How many adapters of her image tower are not reached: one, or all? What lies in front "
            "of all of them?",
            "never called",
            "Anna",
        ),
        Wrong(
            "Anna: taken for the optimizer",
            "The optimizer comes after the gradient. Did one arrive at her image tower?",
            "not in the optimizer",
            "Anna",
        ),
        Wrong(
            "Anna: taken for frozen",
            "Her parameters do want a gradient: they are listed as not reached, not as frozen.",
            "frozen",
            "Anna",
        ),
        Wrong(
            "Ben: one layer taken for a tower",
            "Is all of his image tower not reached, or one layer of it?",
            "detached",
            "Ben",
        ),
        Wrong(
            "Ben: taken for the optimizer",
            "Did a gradient arrive at that layer's adapter? The optimizer comes later.",
            "not in the optimizer",
            "Ben",
        ),
        Wrong(
            "Carla: taken for the first step",
            "What was recorded is the *third* step. Who should have moved B by then?",
            "first step",
            "Carla",
        ),
        Wrong(
            "Carla: taken for detached",
            "Is any matrix of hers *not reached*? The graph is whole.",
            "detached",
            "Carla",
        ),
        Wrong(
            "Carla: taken for never called",
            "A B that gets a gradient belongs to a layer that was called.",
            "never called",
            "Carla",
        ),
    ),
)

ADAMW = Program(
    id="04.6",
    title="One step of AdamW",
    difficulty=3,
    minutes=15,
    asks="""
Write one step of AdamW (section 6) with η = 0.1, λ = 0.01, β₁ = 0.9, β₂ = 0.999 and ε = 1e-8.
Return
the new w, m and v. `step` counts from 1.
""",
    stub='''
def adamw(
    w: torch.Tensor, g: torch.Tensor, m: torch.Tensor, v: torch.Tensor, step: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The new (w, m, v) from the weight, its gradient and the two averages."""
    ...  # your lines here
''',
    solved='''
def adamw(
    w: torch.Tensor, g: torch.Tensor, m: torch.Tensor, v: torch.Tensor, step: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The new (w, m, v) from the weight, its gradient and the two averages."""
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g**2
    m_hat = m / (1 - 0.9**step)
    v_hat = v / (1 - 0.999**step)
    w = w - 0.1 * 0.01 * w - 0.1 * m_hat / (v_hat.sqrt() + 1e-8)
    return w, m, v
''',
    inputs=_adamw,
    hint_text="Section 6 has one formula for each line. What is returned is m and v.",
    remark="""
At the first step m̂ = g and √v̂ = |g|. What does that say of the size of the step?
""",
    mistakes=(
        Mistake(
            "no correction of the averages",
            "The averages start at zero, and what makes up for it is missing: m̂ and v̂.",
            {"m / (1 - 0.9**step)": "m", "v / (1 - 0.999**step)": "v"},
        ),
        Mistake(
            "only m corrected",
            "v starts at zero, too, and is still too small at the first steps.",
            {"v / (1 - 0.999**step)": "v"},
        ),
        Mistake(
            "corrected averages returned",
            "You return m̂ and v̂. Corrected again at the next step, they would grow.",
            {"return w, m, v": "return w, m_hat, v_hat"},
        ),
        Mistake(
            "no square root",
            "The step is divided by v̂ itself.",
            {"v_hat.sqrt()": "v_hat"},
        ),
        Mistake(
            "ε inside the root",
            "ε stands under the root. Beside a gradient of 1e-8 that makes a difference.",
            {"(v_hat.sqrt() + 1e-8)": "(v_hat + 1e-8).sqrt()"},
        ),
        Mistake(
            "decay as part of the gradient",
            "You add λw to the gradient, as Adam with L2 does. The W in AdamW takes it out of "
            "there.",
            {
                "    m = 0.9 * m": "    g = g + 0.01 * w\n    m = 0.9 * m",
                " - 0.1 * 0.01 * w": "",
            },
        ),
        Mistake(
            "no decay",
            "The weight itself is not decayed.",
            {" - 0.1 * 0.01 * w": ""},
        ),
        Mistake(
            "decay without the rate",
            "The decay is not multiplied by η: it takes away ten times as much.",
            {"0.1 * 0.01 * w": "0.01 * w"},
        ),
        Mistake(
            "g not squared",
            "v is the average of the *squares*.",
            {"g**2": "g.abs()"},
        ),
        Mistake(
            "steps counted from 0",
            "The corrections belong to one step earlier, or later: `step` is 1 at the first one.",
            {"**step)": "**(step + 1))"},
        ),
        Mistake(
            "β₁ and β₂ exchanged",
            "The two averages have each other's memory.",
            """
def adamw(w, g, m, v, step):
    m = 0.999 * m + 0.001 * g
    v = 0.9 * v + 0.1 * g**2
    m_hat = m / (1 - 0.999**step)
    v_hat = v / (1 - 0.9**step)
    w = w - 0.1 * 0.01 * w - 0.1 * m_hat / (v_hat.sqrt() + 1e-8)
    return w, m, v
""",
        ),
        Mistake(
            "uphill",
            "The weight moves along the gradient. Which way does the loss fall?",
            {"- 0.1 * m_hat": "+ 0.1 * m_hat"},
        ),
        Mistake(
            "the averages forgotten",
            "The step takes the gradient of this step alone: no averages.",
            {"m_hat / (v_hat": "g / (g.square()"},
        ),
    ),
)

EXERCISES = (BEGINNINGS, BY_HAND, WAYS, PATH, DIAGNOSES, ADAMW)
