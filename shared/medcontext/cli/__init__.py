"""The commands of ``python -m medcontext``.

Their modules contain only signatures and docstrings; a command imports what it needs when it is called.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from inspect import getdoc

import fire

from medcontext import checks
from medcontext.cli.bundles import convert_weights, download, inspect
from medcontext.cli.data import check, phantoms, plan, prepare
from medcontext.cli.ranking import rank
from medcontext.cli.results import compare, send_unsent
from medcontext.cli.training import experiment, finalize, preview
from medcontext.text import escape_records, printable_lines

__all__ = [
    "COMMANDS",
    "check",
    "compare",
    "convert_weights",
    "download",
    "experiment",
    "finalize",
    "inspect",
    "main",
    "phantoms",
    "plan",
    "prepare",
    "preview",
    "rank",
    "send_unsent",
]

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "data": (prepare, check, plan, phantoms),
    "training": (preview, experiment, finalize),
    "results": (compare, rank, send_unsent),
    "bundles": (download, inspect, convert_weights),
}
"""Commands by subject."""


def main() -> None:
    """Run a command, and report a user's mistake in one sentence."""
    escape_records()
    if sys.argv[1:] in ([], ["help"], ["--help"], ["-h"]):
        print(_overview())
        return
    if sys.argv[2:] in (["--help"], ["-h"]):  # for commands that accept any flag, fire would treat it as a value
        sys.argv[2:] = ["--", "--help"]
    commands = {command.__name__: command for group in COMMANDS.values() for command in group}
    try:
        fire.Fire(commands, name="medcontext")
    except (ValueError, OSError, TypeError) as error:
        if isinstance(error, TypeError) and not _is_refusal(error):
            raise
        sys.exit(f"medcontext: {printable_lines(str(error))}")
    except KeyboardInterrupt as end:
        print("medcontext: interrupted; the same command resumes, or starts again.", file=sys.stderr)
        sys.exit(128 + (end.args[0] if end.args else signal.SIGINT))


def _is_refusal(error: TypeError) -> bool:
    """Return whether a check refused an argument; any other ``TypeError`` is a programming error."""
    return traceback.extract_tb(error.__traceback__)[-1].filename == checks.__file__


def _overview() -> str:
    lines = ["python -m medcontext COMMAND --help describes a command."]
    for title, group in COMMANDS.items():
        lines += ["", title]
        lines += [f"  {command.__name__:<16} {_summary(command)}" for command in group]
    return "\n".join(lines)


def _summary(command: Callable[..., None]) -> str:
    return (getdoc(command) or "").partition("\n")[0]
