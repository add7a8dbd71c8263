"""Judging Python expressions of configurations by their syntax, without running them."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from typing import Literal

from medcontext.inspection.allowed import BUILTINS, ENVIRONMENT, METHODS, MODULES, NAMES

__all__ = ["expression_problem", "import_problem", "is_import"]

_REFERENCE = re.compile(r"@\w*(?:(?:#|::)+\w*)*")
_PLACEHOLDER = "reference"
_TAKEN = frozenset({*dir(builtins), *MODULES, "np"})
"""Names with a meaning of their own; MONAI calls NumPy ``np``."""


def is_import(text: str) -> bool:
    """Return whether an expression imports something, as MONAI understands it."""
    return text.lstrip("$ ").startswith(("import ", "from "))


def import_problem(text: str) -> str:
    """Return why an import is not on the allow-list, an empty text if it is.

    Example:
        >>> import_problem("$import torch.nn"), import_problem("$import os")
        ('', 'os is not on the allow-list')
    """
    tree = _parsed(text.lstrip("$ "), "exec")
    if isinstance(tree, str):
        return tree
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            return f"{ast.unparse(node)} is not on the allow-list"
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "."]
        if others := [name for name in names if name.partition(".")[0] not in MODULES]:
            return f"{', '.join(others)} is not on the allow-list"
        if isinstance(node, ast.ImportFrom) or any(alias.asname for alias in node.names):
            return "it imports under other names, which this command does not follow"
    return ""


def expression_problem(text: str) -> str:
    """Return what in an expression is not on the allow-list, an empty text if nothing is.

    Args:
        text: an expression of a configuration; a leading ``$`` is left out, and references (``@network``) are values.

    Example:
        >>> expression_problem("$max(1, len(@train#dataloader) // 2)")
        ''
        >>> expression_problem("$torch.load(@path, weights_only=False)")
        'torch.load is not on the allow-list'
    """
    plain = _REFERENCE.sub(_PLACEHOLDER, text.removeprefix("$").strip().replace(ENVIRONMENT, _PLACEHOLDER))
    tree = _parsed(plain, "eval")
    if isinstance(tree, str):
        return tree
    own = _own_names(tree)
    if taken := sorted(name for name in own if name in _TAKEN or name.startswith("__")):
        return f"it gives {', '.join(taken)} another meaning"
    problems = dict.fromkeys(_refused(tree, own | {_PLACEHOLDER}))
    return f"{', '.join(problems)} {'are' if len(problems) > 1 else 'is'} not on the allow-list" if problems else ""


def _parsed(text: str, mode: Literal["exec", "eval"]) -> ast.AST | str:
    """Return the syntax tree, or why there is none."""
    try:
        return ast.parse(text, mode=mode)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"it is not Python ({type(error).__name__})"


def _own_names(tree: ast.AST) -> set[str]:
    """Return the names that an expression defines: variables of loops, and parameters."""
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


def _refused(node: ast.AST, own: set[str]) -> Iterator[str]:
    """Yield the names that are not on the allow-list."""
    dotted = _dotted(node)
    if dotted is not None:
        if dotted not in NAMES and dotted not in BUILTINS and dotted not in own:
            yield from _refused_name(dotted, own)
        return
    if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
        yield f".{node.attr}"
    if isinstance(node, ast.Call):
        yield from _refused_call(node.func, own)
    for child in ast.iter_child_nodes(node):
        yield from _refused(child, own)


def _refused_name(dotted: str, own: set[str]) -> Iterator[str]:
    """Yield a name with dots unless it is an attribute of a value whose name is the expression's own."""
    root, *attributes = dotted.split(".")
    if root not in own or any(name.startswith("_") for name in attributes):
        yield dotted


def _refused_call(function: ast.expr, own: set[str]) -> Iterator[str]:
    """Yield the name of a method, or of a value, that may not be called."""
    dotted = _dotted(function)
    if dotted is None:
        if not isinstance(function, ast.Attribute):
            yield ast.unparse(function)
        elif function.attr not in METHODS:
            yield f".{function.attr}()"
    elif dotted.partition(".")[0] in own and dotted.rpartition(".")[2] not in METHODS:
        yield f"{dotted}()"


def _dotted(node: ast.AST) -> str | None:
    """Return the name of a variable, or of an attribute of one (``torch.nn``); ``None`` for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        parent = _dotted(node.value)
        return None if parent is None else f"{parent}.{node.attr}"
    return None
