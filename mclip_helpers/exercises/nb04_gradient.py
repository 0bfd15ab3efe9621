"""Exercises of notebook 04: the graph behind a loss, and what it does to A and B."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch.autograd.graph import Node

from .programs import Mistake, Program
from .questions import Question, Wrong


def _doublings(k: int) -> tuple[Node, Node, Node]:
    """A graph in which the number of paths grows at each step, and the two nodes at its ends.

    In the last run there are 40 doublings: nobody follows 2⁴⁰ paths one by one.
    """
    s = torch.ones(1, requires_grad=True)
    other = torch.ones(1, requires_grad=True)
    y = 2 * s * other if k % 2 else other * s  # the 2 wants no gradient: None stands for it
    for i in range(40 if k == 5 else k):
        y = y.exp() + y.sin() if i % 2 else y * y + s
    node = y.grad_fn
    assert node is not None
    return node, _end_of(node, s), _end_of(node, other)


def use_ways(answer: Callable, node: Node, end: Node, another_end: Node) -> dict[str, object]:
    """The numbers of paths to the two ends; a whole number may come as a float."""
    counts = {"end": answer(node, end), "another_end": answer(node, another_end)}
    return {
        name: int(count) if isinstance(count, float) and count.is_integer() else count
        for name, count in counts.items()
    }


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
    """A graph with blocks and ways around them, and one of its two weights.

    The longer way comes first, or last: neither side is always right. The weights differ in no
    run, in their shape, or in their numbers.
    """
    first = torch.ones(2, requires_grad=True)
    second = (torch.ones(2), torch.ones(1), torch.full((2,), 2.0))[k % 3].requires_grad_()
    h = 2 * first  # the 2 wants no gradient: None stands for it
    for i in range(k):
        h = h.tanh() + h.exp().sin().cos() if i % 2 else h.exp().sin() + h
    h = (h * second).sigmoid()
    if k != 1:  # there alone, no two nodes on the way have the same name
        h = 3 * h
    loss = h.sum() if k % 2 else h.mean().log()
    assert loss.grad_fn is not None
    return loss.grad_fn, first if k != 1 else second


def use_path(answer: Callable, loss: Node, weight: torch.Tensor) -> object:
    """The names on a path, or that a second call gives others.

    What only some of them have is left out ("torch::autograd::"), and the address in memory from
    what Python prints for a node.
    """
    names, again = (_names(answer(loss, weight)) for _ in range(2))
    differ = isinstance(names, list) and names != again
    return "something else at a second call" if differ else names


def _names(names: object) -> object:
    if not isinstance(names, list | tuple):
        return names
    return [
        re.sub(r" at 0x\w+", "", n.rpartition("::")[2]) if isinstance(n, str) else type(n)
        for n in names
    ]


def _lora_step(
    k: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """A (rank, in), B (out, rank), x (in, 1), G (out, 1), α; B is zero in run 1.

    No two of the four sizes are equal, and the rank is not always the same.
    """
    rank = 2 + k % 3
    width, out, alpha = rank + 1, rank + 2, 2.0 * rank + 1
    B = torch.randn(out, rank) * (k != 1)
    return torch.randn(rank, width), B, torch.randn(width, 1), torch.randn(out, 1), alpha


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
at the first step ("zero"), and which are not ("some")? Answer with a pair, first A's, then B's.
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
            "α divided by the number of outputs",
            "You divide α by the number of outputs. Which side of B is r?",
            {"alpha / len(A)": "alpha / len(B)"},
        ),
        Mistake(
            "α divided by the number of inputs",
            "You divide α by the number of inputs. Which side of A is r?",
            {"alpha / len(A)": "alpha / A.shape[1]"},
        ),
        Mistake(
            "the notebook's rank",
            "You divide α by 2, the rank in section 4. Which rank do these matrices have?",
            {"alpha / len(A)": "alpha / 2"},
        ),
        Mistake(
            "whole numbers only",
            "`//` leaves out what is behind the point.",
            {"alpha / len(A)": "alpha // len(A)"},
        ),
        Mistake(
            "root of the rank",
            "You divide by the root of r. Some variants of LoRA do; this formula does not.",
            {"alpha / len(A)": "alpha / len(A) ** 0.5"},
        ),
        Mistake(
            "factor missing for A",
            "One of the two has the factor, the other has not: both sit behind it.",
            {"factor * B.T": "B.T"},
        ),
        Mistake(
            "factor missing for B",
            "One of the two has the factor, the other has not: both sit behind it.",
            {"factor * G": "G"},
        ),
        Mistake(
            "factor twice for A",
            "A's gradient has the factor twice. It stands once on the way from y to either matrix.",
            {"factor * B.T": "factor**2 * B.T"},
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
            {"B.T @ G @ x.T": "G @ x.T"},
        ),
        Mistake(
            "A forgotten in B's gradient",
            "What reaches B in the forward pass is not x.",
            {"G @ (A @ x).T": "G @ x.T"},
        ),
        Mistake(
            "the sign",
            "These are steps *against* the gradient.",
            {"alpha / len(A)": "-alpha / len(A)"},
        ),
        Mistake(
            "A's gradient zero in any case",
            "A's gradient is zero as long as *one* matrix is zero. Here it need not be.",
            {"factor * B.T @ G @ x.T": "torch.zeros_like(A)"},
        ),
        Mistake(
            "both transposed",
            "The right numbers, and both lie on their side: which shapes have A and B?",
            {
                "factor * B.T @ G @ x.T": "(factor * B.T @ G @ x.T).T",
                "factor * G @ (A @ x).T": "(factor * G @ (A @ x).T).T",
            },
        ),
        Mistake(
            "weights after a step",
            "These are weights after a step. Asked are the gradients.",
            {
                "return factor * B.T @ G @ x.T, ": "return A - factor * B.T @ G @ x.T, B - ",
            },
        ),
        Mistake(
            ".grad read",
            "It returns None in place of a gradient: `.grad` is empty, because nobody called "
            "`backward()`.",
            {"factor * B.T @ G @ x.T, factor * G @ (A @ x).T": "A.grad, B.grad"},
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
    use=use_ways,
    rounds=6,
    limit=3.0,
    hint_text="""
The number of paths from a node is the sum of the numbers from its `next_functions`; from `end` it
is 1. Keep what you have computed in a dictionary.
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
            "You find at most one path. Where a node has several inputs, what becomes of the paths "
            "through each?",
            {
                "sum(count(behind) for behind, _ in node.next_functions)": "max("
                "(count(behind) for behind, _ in node.next_functions), default=0)"
            },
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
            "length of the longest path",
            "This is how long the longest path is. How many paths are there?",
            """
def ways(node, end):
    known = {end: 0}

    def count(node):
        if node not in known:
            behind = [b for b, _ in node.next_functions if b is not None]
            known[node] = max((1 + count(b) for b in behind), default=-(10**9))
        return known[node]

    return count(node)
""",
        ),
        Mistake(
            "counts kept by name",
            "You keep the counts by the names of the nodes. How many nodes are called "
            "`AddBackward0`?",
            {
                "known = {end: 1, None: 0}": "known = {}",
                "if node not in known:": "if node is None or node is end:\n"
                "            return int(node is end)\n        if node.name() not in known:",
                "known[node]": "known[node.name()]",
            },
        ),
        Mistake(
            "counts kept after the call",
            "It still knows the counts of an earlier call, and the `end` was another one then. "
            "(A default value is made once, when the function is.)",
            """
def ways(node, end, known={}):
    if node is end or node is None:
        return int(node is end)
    if node not in known:
        known[node] = sum(ways(behind, end) for behind, _ in node.next_functions)
    return known[node]
""",
        ),
        Mistake(
            "nodes seen in an earlier call",
            "It still knows the nodes that an earlier call has seen (a default value is made once, "
            "when the function is). And a node that was seen can lie on more than one path.",
            """
def ways(node, end, seen=set()):
    if node is end:
        return 1
    if node is None or node in seen:
        return 0
    seen.add(node)
    return sum(ways(behind, end, seen) for behind, _ in node.next_functions)
""",
        ),
        Mistake(
            "edges counted",
            "You count one more at each node: that counts steps, not paths.",
            {"sum(count(behind)": "1 + sum(count(behind)"},
        ),
    ),
)

SAME_OBJECT = "Another weight may look just the same: how do you know that it is this very object?"

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
            "the first way found, last input first",
            "This is a way, and not the shortest: you follow one branch to its end before you "
            "look at the others.",
            {
                "for nodes in waiting:": "while waiting:\n        nodes = waiting.pop()",
            },
        ),
        Mistake(
            "the longest way",
            "This way leads there, and no other is as long. Asked is the shortest.",
            """
def shortest_path(loss, weight):
    best, waiting = [], [[loss]]
    for nodes in waiting:
        if getattr(nodes[-1], "variable", None) is weight and len(nodes) > len(best):
            best = nodes
        waiting += [[*nodes, node] for node, _ in nodes[-1].next_functions if node is not None]
    return [node.name() for node in best]
""",
        ),
        Mistake(
            "the loop of section 4",
            "As the loop of section 4, you take the first node behind each, and end at whichever "
            "weight that leads to. Here there are several ways, and two weights.",
            """
def shortest_path(loss, weight):
    node, names = loss, [loss.name()]
    while not hasattr(node, "variable"):
        node = next(n for n, _ in node.next_functions if n is not None)
        names.append(node.name())
    return names
""",
        ),
        Mistake(
            "all nodes that were looked at",
            "These are all the nodes that you looked at. Which of them lie on one way from the "
            "loss to the weight?",
            """
def shortest_path(loss, weight):
    waiting, names = [loss], []
    for node in waiting:
        names.append(node.name())
        if getattr(node, "variable", None) is weight:
            return names
        waiting += [behind for behind, _ in node.next_functions if behind is not None]
""",
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
            "a weight of the same shape",
            SAME_OBJECT,
            {
                'getattr(nodes[-1], "variable", None) is weight': 'hasattr(nodes[-1], "variable") '
                "and nodes[-1].variable.shape == weight.shape"
            },
        ),
        Mistake(
            "a weight with the same numbers",
            SAME_OBJECT,
            {
                'getattr(nodes[-1], "variable", None) is weight': 'hasattr(nodes[-1], "variable") '
                "and torch.equal(nodes[-1].variable, weight)"
            },
        ),
        Mistake(
            "tensors compared with ==",
            "`==` compares two tensors number by number, and gives as many answers. How does "
            "Python ask whether two names mean one object?",
            {
                'getattr(nodes[-1], "variable", None) is weight': 'hasattr(nodes[-1], "variable") '
                "and nodes[-1].variable == weight"
            },
        ),
        Mistake(
            "nothing found",
            "Nothing came back. Is there a `return` on every way through? And if you look for "
            "`weight.grad_fn`: no operation made a weight, so that is None.",
            {'getattr(nodes[-1], "variable", None) is weight': "nodes[-1] is weight.grad_fn"},
        ),
        Mistake(
            "no two nodes of one name",
            "Of all nodes with the same name you enter only one. How many on this way are called "
            "`MulBackward0`?",
            """
def shortest_path(loss, weight):
    waiting, seen = [[loss]], {loss.name()}
    for nodes in waiting:
        if getattr(nodes[-1], "variable", None) is weight:
            return [node.name() for node in nodes]
        for node, _ in nodes[-1].next_functions:
            if node is not None and node.name() not in seen:
                seen.add(node.name())
                waiting.append([*nodes, node])
""",
        ),
        Mistake(
            "loss.grad_fn",
            "`loss` is a node already: the check passes the `grad_fn` of a loss.",
            {"[[loss]]": "[[loss.grad_fn]]"},
        ),
        Mistake(
            "a list kept after the call",
            "It still holds the nodes of an earlier call. (A default value is made once, when the "
            "function is.)",
            """
def shortest_path(loss, weight, names=[]):
    names.append(loss.name())
    if getattr(loss, "variable", None) is weight:
        return names
    for behind, _ in loss.next_functions:
        if behind is not None:
            found = shortest_path(behind, weight, names)
            if found:
                return found
""",
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
            "name without brackets",
            "`node.name` is the method itself. Nobody has called it.",
            {"node.name() for": "node.name for"},
        ),
        Mistake(
            "what Python prints for a node",
            "This is what Python prints for an object, with its place in memory. The node has a "
            "name of its own.",
            {"node.name() for": "str(node) for"},
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
Yet in each something does not learn. Decide from the recordings alone, before you read their code:
what is wrong?
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
            "Anna: taken for the first step",
            "What was recorded is the *third* step. And a gradient of zero is one that arrived: "
            "did any, at her image tower?",
            "first step",
            "Anna",
        ),
        Wrong(
            "Ben: taken for frozen",
            "Its parameters do want a gradient: they are listed as not reached, not as frozen.",
            "frozen",
            "Ben",
        ),
        Wrong(
            "Ben: taken for the first step",
            "What was recorded is the *third* step. And a gradient of zero is one that arrived: "
            "did any, at that layer?",
            "first step",
            "Ben",
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
            "Carla: taken for frozen",
            "What is frozen gets no gradient. Does one arrive at her parameters?",
            "frozen",
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
Write one step of AdamW (section 6) with η = 0.1, larger than ours, and λ = 0.01, β₁ = 0.9,
β₂ = 0.999 and ε = 1e-8. Return the new w, m and v. `step` counts from 1.
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
            "old averages returned",
            "The w is right, and the averages are those that came in: the next step would begin "
            "without this gradient.",
            {
                "    m = 0.9 * m": "    old = m, v\n    m = 0.9 * m",
                "return w, m, v": "return w, *old",
            },
        ),
        Mistake(
            "results in another order",
            "Right, in another order: the weight comes first.",
            {"return w, m, v": "return m, v, w"},
        ),
        Mistake(
            "corrections without the power",
            "Your corrections are those of the first step, at every step.",
            {"**step": ""},
        ),
        Mistake(
            "power of the difference",
            "You take the power of 1 − β. What is raised to the power is β alone.",
            {"(1 - 0.9**step)": "(1 - 0.9) ** step", "(1 - 0.999**step)": "(1 - 0.999) ** step"},
        ),
        Mistake(
            "β times the step",
            "You multiply β by the number of the step. In the formula that number is an exponent.",
            {"**step": " * step"},
        ),
        Mistake(
            "^ for the power",
            "In Python `^` is not the power but a bitwise operation. The power is `**`.",
            {"**step": "^step"},
        ),
        Mistake(
            "multiplied by the correction",
            "The averages start too small, and your correction makes them smaller still.",
            {"m / (": "m * (", "v / (": "v * ("},
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
            "no ε",
            "ε is missing. Beside a gradient of 1e-8 that makes a difference.",
            {"(v_hat.sqrt() + 1e-8)": "v_hat.sqrt()"},
        ),
        Mistake(
            "the rate of section 6",
            "Your step has the learning rate of section 6. Which one is asked for here?",
            {"0.1 * 0.01 * w": "0.001 * 0.01 * w", "0.1 * m_hat": "0.001 * m_hat"},
        ),
        Mistake(
            "decay of the new weight",
            "You decay the weight after the step. In the formula both terms have the old w.",
            {
                "w - 0.1 * 0.01 * w - 0.1 * m_hat / (v_hat.sqrt() + 1e-8)": "w - 0.1 * m_hat / "
                "(v_hat.sqrt() + 1e-8)\n    w = w - 0.1 * 0.01 * w"
            },
        ),
        Mistake(
            "decay with the other sign",
            "Your decay makes the weight larger.",
            {"w - 0.1 * 0.01 * w": "w + 0.1 * 0.01 * w"},
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
            "v is the average of the *squares*: of g itself it can be negative, and its root NaN.",
            {"g**2": "g"},
        ),
        Mistake(
            "absolute value of g",
            "v is the average of the *squares*.",
            {"g**2": "g.abs()"},
        ),
        Mistake(
            "steps counted from 0",
            "The corrections belong to one step earlier, or later: `step` is 1 at the first one.",
            {"**step)": "**(step + 1))"},
        ),
        Mistake(
            "one step too few",
            "At step 1 your corrections divide by 1 − β⁰, which is 0. `step` counts from 1.",
            {"**step)": "**(step - 1))"},
        ),
        Mistake(
            "β and 1 − β exchanged",
            "β is the share of the *old* average: yours forgets nearly all of it at each step.",
            {
                "0.9 * m + 0.1 * g": "0.1 * m + 0.9 * g",
                "0.999 * v + 0.001 * g**2": "0.001 * v + 0.999 * g**2",
            },
        ),
        Mistake(
            "the formulas of the first step",
            "As at the first step, your averages hold this gradient alone. What came in as m and v "
            "is in none of them.",
            """
def adamw(w, g, m, v, step):
    m, v = 0.1 * g, 0.001 * g**2
    w = w - 0.1 * 0.01 * w - 0.1 * (m / 0.1) / ((v / 0.001).sqrt() + 1e-8)
    return w, m, v
""",
        ),
        Mistake(
            "the step before the averages",
            "Your step uses the m and v that came in: this gradient is in neither yet.",
            """
def adamw(w, g, m, v, step):
    m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.999**step)
    w = w - 0.1 * 0.01 * w - 0.1 * m_hat / (v_hat.sqrt() + 1e-8)
    return w, 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
""",
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
