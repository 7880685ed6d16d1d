"""What the files of methods say about them, read without running them: a list of methods must not import torch."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

from tutelage.core.registry import Listing, Paper

Definition = ast.ClassDef | ast.FunctionDef


def outlines(files: Iterable[Path]) -> list[Listing]:
    """Return the methods that some files register.

    The `build` of each only has the method's docstring and the names of its arguments; it builds nothing.

    Args:
        files: Files of methods, and those of the papers that they cite.

    Raises:
        OSError: If a file cannot be read, as where a package comes without its source.
        ValueError: If a method is described by more than literals and names of papers.
    """
    trees = [ast.parse(file.read_text(encoding="utf-8"), filename=file.name) for file in files]
    papers = {name: paper for tree in trees for name, paper in _papers(tree)}
    return [_listing(node, call, papers) for tree in trees for node, call in _registered(tree)]


def _papers(tree: ast.Module) -> Iterator[tuple[str, Paper]]:
    """Yield the constants `NAME = Paper(...)`, by name."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id="Paper")) as call):
                yield name, Paper(**{str(each.arg): ast.literal_eval(each.value) for each in call.keywords})


def _registered(tree: ast.Module) -> Iterator[tuple[Definition, ast.Call]]:
    """Yield each class or function below `@register(...)`, with that call."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(func=ast.Name(id="register")):
                    yield node, decorator


def _listing(node: Definition, call: ast.Call, papers: dict[str, Paper]) -> Listing:
    given = {str(keyword.arg): keyword.value for keyword in call.keywords}
    match call.args, given.get("papers"):
        case [ast.Constant(value=str(name))], ast.List(elts=cited):
            family = {"family": ast.literal_eval(given["family"])} if "family" in given else {}
            found = tuple(_paper(each, papers) for each in cited)
            return Listing(name=name, build=_skeleton(node), papers=found, **family)
    raise ValueError(f'line {call.lineno}: not written as @register("NAME", papers=[PAPER, ...])')


def _paper(node: ast.expr, papers: dict[str, Paper]) -> Paper:
    name = ast.unparse(node)
    if name not in papers:
        raise ValueError(f"line {node.lineno}: {name} is no constant made by Paper(...)")
    return papers[name]


def _skeleton(node: Definition) -> Callable[..., None]:
    """Return a function with the docstring and the arguments of a class or function, which does nothing."""

    def build(*_: Any, **__: Any) -> None:
        raise NotImplementedError(f"{node.name} was only read, not imported.")

    made = _function(node)
    names = [argument.arg for argument in (*made.args.posonlyargs, *made.args.args, *made.args.kwonlyargs)]
    parameters = [Parameter(name, Parameter.KEYWORD_ONLY) for name in names if name != "self"]
    build.__doc__ = ast.get_docstring(node)
    vars(build)["__signature__"] = Signature(parameters)
    return build


def _function(node: Definition) -> ast.FunctionDef:
    if isinstance(node, ast.FunctionDef):
        return node
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return inner
    raise ValueError(f"line {node.lineno}: {node.name} has no __init__ of its own")
