"""What the files of a bundle would run."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml  # type: ignore[import-untyped]
from monai.bundle.config_item import ComponentLocator

from medcontext.inspection.allowed import COMPONENTS, LOG_HANDLERS
from medcontext.inspection.expressions import expression_problem, import_problem, is_import
from medcontext.storage.json_files import parse_json

__all__ = ["Finding", "config_findings", "log_findings"]

LARGEST = 1 << 20
"""Bytes of the largest configuration that is read."""
MODES = ("default", "callable")
"""Values of ``_mode_`` that start no debugger."""


@dataclass(frozen=True)
class Finding:
    """Something that a bundle would run.

    Attributes:
        file: file in the bundle.
        key: key in the file, with ``#`` between its parts.
        kind: ``expression``, ``import``, ``component``, ``mode``, ``file``, ``logging`` or ``code``.
        text: the text as it stands there.
        problem: why it is not on the allow-list; empty if it is.
    """

    file: str
    key: str
    kind: str
    text: str
    problem: str = ""


def config_findings(file: str, content: bytes) -> Iterator[Finding]:
    """Yield what a configuration would run; a file that cannot be read is a finding itself.

    Args:
        file: its name in the bundle.
        content: its bytes, JSON or YAML.
    """
    if len(content) > LARGEST:
        yield Finding(file, "", "file", file, f"it has {len(content)} bytes, more than any configuration")
        return
    try:
        is_json = file.endswith(".json")
        parsed = parse_json(content, finite=False) if is_json else _without_aliases(content.decode("utf-8-sig"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        yield Finding(file, "", "file", file, f"it cannot be read ({' '.join(str(error).split())[:200]})")
        return
    yield from _walk(file, "", parsed)


def _without_aliases(text: str) -> Any:
    """Read YAML without aliases, by which a short file becomes an endless one."""
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
        raise ValueError("it has aliases")
    return yaml.safe_load(text)


def _walk(file: str, key: str, value: Any) -> Iterator[Finding]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            place = f"{key}#{name}" if key else str(name)
            if name == "_target_":
                yield Finding(file, place, "component", str(item), _component_problem(item))
            elif name == "_mode_":
                problem = "" if item in MODES else "it is not on the allow-list: it may start a debugger"
                yield Finding(file, place, "mode", str(item), problem)
            if name != "_target_" or not isinstance(item, str):
                yield from _walk(file, place, item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(file, f"{key}#{index}", item)
    elif isinstance(value, str):
        yield from _text_findings(file, key, value)


def _text_findings(file: str, key: str, text: str) -> Iterator[Finding]:
    if text.startswith("$"):
        kind, judge = ("import", import_problem) if is_import(text) else ("expression", expression_problem)
        yield Finding(file, key, kind, text, judge(text))
    elif text.startswith("%") and (path := text[1:].partition("::")[0]).endswith((".json", ".yaml", ".yml")):
        yield Finding(file, key, "file", text, f"{path} is taken in from a file that is not looked at here")


def _component_problem(target: Any) -> str:
    """Return why a ``_target_`` is not on the allow-list; a name without dots is that of one of MONAI's."""
    if not isinstance(target, str):
        return "it is not the name of a component"
    names = [f"{module}.{target}" for module in _monai_modules(target)] if "." not in target else [target]
    parts = target.split(".")
    if not all(part.isidentifier() and not part.startswith("_") for part in parts):
        return f"{target} is not the name of a component"
    if not names:
        return f"MONAI has no {target}"
    if all(name.startswith(COMPONENTS) and _is_class_name(name) for name in names):
        return ""
    return f"{' or '.join(names)} is not on the allow-list"


def _is_class_name(name: str) -> bool:
    """Return whether a component is a class by its name; functions, which may do anything when called, are not.

    ``cached_dataset`` is the one function that the bundles name.
    """
    own = name.rpartition(".")[2]
    return own[:1].isupper() or name == "medcontext.data.cached_dataset"


@cache
def _locator() -> ComponentLocator:
    return ComponentLocator()


def _monai_modules(name: str) -> list[str]:
    """Return the modules in which MONAI finds a name without dots."""
    found = _locator().get_component_module_name(name)
    return [found] if isinstance(found, str) else list(found or [])


def log_findings(file: str, content: bytes) -> Iterator[Finding]:
    """Yield the handlers and formatters of a ``logging.conf``, whose classes and arguments Python evaluates.

    Args:
        file: its name in the bundle.
        content: its bytes.
    """
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(content.decode("utf-8-sig"))
    except (ValueError, configparser.Error) as error:
        yield Finding(file, "", "file", file, f"it cannot be read ({' '.join(str(error).split())[:200]})")
        return
    for section in parser.sections():
        for name in ("class", "args", "kwargs"):
            if parser.has_option(section, name):
                text = parser.get(section, name)
                yield Finding(file, f"{section}#{name}", "logging", text, _log_problem(section, name, text))


def _log_problem(section: str, name: str, text: str) -> str:
    if name == "class":
        known = LOG_HANDLERS if section.startswith("handler_") else {"logging.Formatter"}
        return "" if text in known else f"{text} is not on the allow-list"
    plain = text.replace("sys.stderr", "None").replace("sys.stdout", "None")
    try:
        ast.literal_eval(plain)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return "its arguments are not plain values"
    return ""
