from __future__ import annotations

import re

import pytest

from medcontext.inspection import expression_problem, import_problem


@pytest.mark.parametrize(
    "text",
    [
        "$@home + '/runs/' + @bundle",
        "$max(1, @max_epochs // 8) if @val_interval else None",
        "$[1.0 if size > 3 * min(@spacing) else 0.7 for size in @spacing]",
        "$@network.parameters()",
        "$medcontext.data.load_cases(@datalist, 'training', seed=@seed)",
        "$torch.device('cuda', int(__import__('os').environ['LOCAL_RANK']))",
        "$', '.join(f'{name}' for name in @labels)",
        "$lambda x: x + 1",
    ],
)
def test_expressions_of_bundles(text: str) -> None:
    assert expression_problem(text) == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("$__import__('os').system('id')", "__import__ are not"),
        ("$eval('1')", "eval is not"),
        ("$open('/etc/passwd').read()", r"\.read\(\), open are not"),
        ("$print(1)", "print is not"),
        ("$torch.load(@path)", "torch.load is not"),
        ("$max([1], key=torch.hub.load)", "torch.hub.load is not"),
        ("$os.environ", "os.environ is not"),
        ("$().__class__.__bases__[0].__subclasses__()", "__subclasses__"),
        ("$@network.__init__.__globals__", "reference.__init__.__globals__ is not"),
        ("$f'{@network.__class__}'", "__class__"),
        ("$@trainer.run()", r"reference.run\(\) is not"),
        ("$[x.run() for x in @handlers]", r"x.run\(\) is not"),
        ("$(lambda: @trainer)()", "lambda: reference is not"),
        ("$[len][0](@x)", r"\[len\]\[0\] is not"),
        ("$[eval for x in [0]]", "eval is not"),
        ("$[0 for torch in []] or max(['a'], key=torch.hub.load)", "gives torch another meaning"),
        ("$[0 for eval in []] or max(['1'], key=eval)", "gives eval another meaning"),
        ("$(lambda np: 0) and max(['a'], key=np.load)", "gives np another meaning"),
        ("$[0 for __builtins__ in []] or __builtins__['eval']", "gives __builtins__ another meaning"),
        ("$'{0.__class__}'.format(@network)", r"\.format\(\) is not"),
        ("$medcontext.tracking.send_unsent()", "medcontext.tracking.send_unsent is not"),
        ("$1 +", "it is not Python"),
        ("$" + "(" * 500 + ")" * 500, "it is not Python"),
    ],
)
def test_expressions_that_may_do_anything(text: str, problem: str) -> None:
    assert re.search(problem, expression_problem(text))


@pytest.mark.parametrize("text", ["$import torch", "$import medcontext.data", "$import numpy"])
def test_imports_of_bundles(text: str) -> None:
    assert import_problem(text) == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("$import os", "os is not on the allow-list"),
        ("$import torch, subprocess", "subprocess is not on the allow-list"),
        ("$from . import scripts", ". is not on the allow-list"),
        ("$import scripts.net", "scripts.net is not on the allow-list"),
        ("$import torch.hub as len", "under other names"),
        ("$from torch import load as max", "under other names"),
        ("$import torch; print(1)", "is not on the allow-list"),
        ("$import", "it is not Python"),
    ],
)
def test_imports_that_may_do_anything(text: str, problem: str) -> None:
    assert problem in import_problem(text)
