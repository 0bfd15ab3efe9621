"""Make docs/api.md: every public name with its docstring, under the notebook that introduces it.

    python tools/api_page.py

Names, order and notebooks are those of `__all__` in mclip_helpers/__init__.py, in which each
comment is the name of a notebook.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import io
import tokenize
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import nbformat

import mclip_helpers as mh

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"
WIDTH = 90  # of a signature; a longer one gets a line for each parameter
HEAD = """\
<!-- Made by `make docs` from the docstrings: change those. -->
# The public names

Every name of `import mclip_helpers as mh`, under the notebook that introduces it."""


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(mh.__all__)} names")


def groups() -> dict[str, list[str]]:
    """Notebook → the names that it introduces: the comments and strings of `__all__`."""
    source = inspect.getsource(mh)
    lines = io.StringIO(source[source.index("__all__ = [") :])
    notebooks: dict[str, list[str]] = {}
    for token in tokenize.generate_tokens(lines.readline):
        if token.type == tokenize.COMMENT:
            names = notebooks.setdefault(token.string.removeprefix("# "), [])
        elif token.type == tokenize.STRING:
            names.append(ast.literal_eval(token.string))
        elif token.string == "]":
            break
    return notebooks


def page() -> str:
    """The page, in Markdown: a table of all names, then each of them."""
    table, entries, seen = ["| notebook | names |", "|---|---|"], [], Counter[str]()
    for notebook, names in groups().items():
        heading = f"[{title(notebook)}](../notebooks/{notebook}.ipynb)"
        links = ", ".join(f"[`{name}`](#{anchor(name, seen)})" for name in names)
        table.append(f"| {heading} | {links} |")
        entries += [f"## {heading}", *(entry(name) for name in names)]
    return "\n\n".join([HEAD, "\n".join(table), *entries]) + "\n"


def title(notebook: str) -> str:
    """The first heading of a notebook."""
    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
    lines = [line for cell in cells for line in cell.source.splitlines()]
    return next(line.removeprefix("# ") for line in lines if line.startswith("# "))


def anchor(name: str, seen: Counter[str]) -> str:
    """The anchor that GitHub gives a heading: small letters, numbered from the second one on."""
    small = name.lower()
    seen[small] += 1
    return small if seen[small] == 1 else f"{small}-{seen[small] - 1}"


def entry(name: str) -> str:
    """One public name: how it is called, its docstring, what it has inside, where it is defined."""
    thing = getattr(mh, name)
    if isinstance(thing, ModuleType):
        inside = members((f"{name}.{inner}", getattr(thing, inner)) for inner in thing.__all__)
        parts = [doc(thing), inside]
    elif inspect.isclass(thing):
        parts = [code(class_line(thing)), doc(thing), members(attributes(thing))]
    elif callable(thing):
        parts = [code(f"{name}{signature(thing)}"), doc(thing)]
    else:
        return f"### {name}\n\n{code(f'{name} = {thing!r}')}"
    source = Path(inspect.getfile(inspect.unwrap(thing))).relative_to(ROOT).as_posix()
    return "\n\n".join([f"### {name}", *filter(None, parts), f"In [{source}](../{source})."])


def code(source: str) -> str:
    return f"```python\n{source}\n```"


def doc(thing: object) -> str:
    return inspect.cleandoc(thing.__doc__ or "")


class Source(str):
    """An annotation as it stands in the source: `inspect` puts no quotes around it."""

    __repr__ = str.__str__


def signature(function: Callable, *, method: bool = False) -> str:
    """`(a: int, b: str = 'x') -> bool`, in several lines if it is long. A method has no `self`."""
    whole = inspect.signature(function)
    parts = [
        p.replace(annotation=Source(p.annotation)) if isinstance(p.annotation, str) else p
        for p in list(whole.parameters.values())[int(method) :]
    ]
    if isinstance(whole.return_annotation, str):
        whole = whole.replace(return_annotation=Source(whole.return_annotation))
    whole = whole.replace(parameters=parts)
    if len(str(whole)) <= WIDTH:
        return str(whole)
    lines, named = [str(p) for p in parts], [p.kind is p.KEYWORD_ONLY for p in parts]
    if any(named) and not any(p.kind is p.VAR_POSITIONAL for p in parts):
        lines.insert(named.index(True), "*")
    end = str(whole.replace(parameters=[])).removeprefix("(")
    return "(\n" + "".join(f"    {line},\n" for line in lines) + end


def class_line(cls: type) -> str:
    """How a class is called, or what it is: a dataclass is called with its fields, shown below."""
    own = vars(cls).get("__init__")
    if inspect.isfunction(own) and not dataclasses.is_dataclass(cls):
        return cls.__name__ + signature(own, method=True).removesuffix(" -> None")
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    return f"class {cls.__name__}" + (f"({bases})" if bases else "")


def attributes(cls: type) -> Iterator[tuple[str, object]]:
    """The fields of a dataclass, then the public methods and properties that a class defines."""
    if dataclasses.is_dataclass(cls):
        yield from ((f".{field.name}: {field.type}", None) for field in dataclasses.fields(cls))
    for name, thing in vars(cls).items():
        if not name.startswith("_") and (inspect.isroutine(thing) or is_property(thing)):
            yield f".{name}", thing


def is_property(thing: object) -> bool:
    return isinstance(thing, property | functools.cached_property)


def members(things: Iterable[tuple[str, object]]) -> str:
    """A line for each: how it is called, without types, and the first paragraph of its docstring.

    A value has no docstring of its own, only that of its class: it is named and no more.
    """
    lines = []
    for name, thing in things:
        call = begin = ""
        if inspect.isfunction(thing):
            parts = inspect.signature(thing).parameters.values()
            bare = [str(p.replace(annotation=p.empty)) for p in parts if p.name != "self"]
            call = f"({', '.join(bare)})"
        if callable(thing) or is_property(thing):
            begin = " ".join(doc(thing).partition("\n\n")[0].split())
        lines.append(f"- `{name}{call}`" + (f": {begin}" if begin else ""))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
