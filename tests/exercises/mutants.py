"""Small changes of a program, one at a time, as mutation testing makes them.

Of the mutation tools that are kept up, mutmut and cosmic-ray, each is made to run a test suite once
for each change of a file; their operators are inside, and bring a database or a terminal interface
along. For one function in a string, these operators are enough.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator

COMPARE = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div, ast.Mult),
    ast.Pow: (ast.Mult,),
    ast.MatMult: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
NAMES = {
    "sum": "mean",
    "mean": "sum",
    "min": "max",
    "max": "min",
    "amax": "amin",
    "any": "all",
    "all": "any",
    "zeros": "ones",
    "exp": "log",
    "log": "exp",
    "sqrt": "square",
}


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(what was changed, the changed source) of each mutant; each is another program."""
    tree = _without_words(ast.parse(source))
    seen = {ast.unparse(tree)}
    for place, node in enumerate(ast.walk(tree)):
        for change in changes(node):
            mutant = copy.deepcopy(tree)
            target = list(ast.walk(mutant))[place]
            change(target)
            try:
                text = ast.unparse(ast.fix_missing_locations(mutant))
                compile(text, "mutant", "exec")
            except (SyntaxError, ValueError):
                continue
            if text not in seen:
                seen.add(text)
                yield _changed_lines(ast.unparse(tree), text), text


def _without_words(tree: ast.Module) -> ast.Module:
    """The program without docstrings and annotations, which do nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body.pop(0)
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return tree


def changes(node: ast.AST) -> Iterator[Callable[[ast.AST], None]]:
    """What can be changed in a node; each change works on a copy of it."""
    if isinstance(node, ast.Compare):
        for other in COMPARE.get(type(node.ops[0]), ()):
            yield lambda n, other=other: n.ops.__setitem__(0, other())
    if isinstance(node, ast.BinOp):
        for other in ARITHMETIC.get(type(node.op), ()):
            yield lambda n, other=other: setattr(n, "op", other())
        yield lambda n: _become(n, n.left)
        yield lambda n: _become(n, n.right)
    if isinstance(node, ast.BoolOp):
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield lambda n: setattr(n, "op", other())
        for i in range(len(node.values)):
            yield lambda n, i=i: _become(n, n.values[i])
    if isinstance(node, ast.UnaryOp):
        yield lambda n: _become(n, n.operand)
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield lambda n: setattr(n, "value", not n.value)
        elif isinstance(node.value, int | float):
            steps = (1, -1) if abs(node.value) >= 0.5 or node.value == 0 else (node.value, 1)
            for step in steps:
                yield lambda n, step=step: setattr(n, "value", n.value + step)
        elif node.value is None:
            yield lambda n: setattr(n, "value", 0)
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    if isinstance(node, ast.comprehension):
        for i in range(len(node.ifs)):
            yield lambda n, i=i: n.ifs.pop(i)
    if isinstance(node, ast.Call):
        if len(node.args) >= 2:
            yield lambda n: n.args.__setitem__(slice(0, 2), [n.args[1], n.args[0]])
        for i in range(len(node.keywords)):
            yield lambda n, i=i: n.keywords.pop(i)
        if node.args:
            yield lambda n: n.args.pop()
        if isinstance(node.func, ast.Attribute):  # the method is not called
            yield lambda n: _become(n, n.func.value)
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield lambda n: setattr(n, "attr", NAMES[n.attr])
    if isinstance(node, ast.Attribute) and node.attr in ("T", "indices"):
        yield lambda n: _become(n, n.value)
    if isinstance(node, ast.Name) and node.id in NAMES:
        yield lambda n: setattr(n, "id", NAMES[n.id])
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) >= 2:
        yield lambda n: n.elts.__setitem__(slice(0, 2), [n.elts[1], n.elts[0]])
    for field in ("body", "orelse"):
        body = getattr(node, field, None)
        if isinstance(body, list):
            for i, statement in enumerate(body):
                if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
                    yield lambda n, field=field, i=i: _remove(getattr(n, field), i)


def _remove(body: list[ast.stmt], i: int) -> None:
    body[i] = ast.Pass()


def _become(node: ast.AST, other: ast.AST) -> None:
    """Turn a node into another one, where it stands."""
    node.__class__ = other.__class__
    fields = dict(vars(other))
    vars(node).clear()
    vars(node).update(fields)


def _changed_lines(before: str, after: str) -> str:
    """The lines of `after` that are not in `before`; "-" and the line where one is gone."""
    old, new = before.splitlines(), after.splitlines()
    changed = [line.strip() for line in new if line not in old]
    changed = [line for line in changed if line != "pass"]
    gone = [f"- {line.strip()}" for line in old if line not in new]
    return " / ".join(changed or gone)
