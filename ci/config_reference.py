"""Write the reference of a bundle's configuration keys, docs/reference.md, from the configurations themselves.

python ci/config_reference.py --check     say which bundles' references are not what their configurations give
python ci/config_reference.py --write     write them

What the keys mean stands in config_keys.json; what the arguments of our components mean, in their docstrings.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fire

from sync_bundles import BUNDLES, bundle_folders

MEANINGS = Path(__file__).with_name("config_keys.json")
ENTRIES = ("train", "evaluate", "inference")
OVERLAYS = (
    *("btcv", "acdc", "brats", "hippocampus", "phantom", "small_gpu", "baseline", "patch_dropout", "masking_only"),
    *("pseudo_labels", "medcontext_unlabeled", "paper", "resume", "auto_resume", "multi_gpu_train"),
)
# keys whose arguments are those of our own components, and where these take them from
COMPONENTS = {
    "organ_dropout": ("medcontext.transforms.RandOrganDropout", ()),
    "masking, in paper.json": ("medcontext.transforms.RandPatchDropout", ()),
    "token_masking": ("medcontext.networks.TokenMasking", ("network", "input_shape")),
    "consistency": ("medcontext.losses.ConsistencyLoss", ()),
}
LONGEST = 400  # characters of a value that a table shows in full
HEAD = """# Configuration keys

Every key of this bundle's configurations, written from them by `ci/config_reference.py`. Any key can be given on the
command line (`--max_epochs 100`), nested ones by their path (`--organ_dropout#cell_size 6`), or set by a file of yours
behind the others in `--config_file`. The third column holds the value in `train.json`, or else in the file named
there, and what other files make of it. `@key` is the value of another key, `$…` a Python expression.
"""


def reference(bundle: str, configs: Mapping[str, Mapping[str, Any]]) -> str:
    """The document for one bundle.

    Args:
        bundle: its name.
        configs: the content of its configuration files, by their names without ending.

    Raises:
        ValueError: When a key of the configurations has no meaning, or a meaning no key.
    """
    meanings = json.loads(MEANINGS.read_text(encoding="utf-8"))
    files = {name: configs[name] for name in (*ENTRIES, *OVERLAYS)}
    values = _values(files)
    told = [key for section in meanings.values() for key in section]
    for wrong, problem in (
        (values.keys() - set(told), "has keys without a meaning in config_keys.json"),
        (set(told) - values.keys(), "lacks keys that config_keys.json tells of"),
        ({key for key in told if told.count(key) > 1}, "has keys that config_keys.json tells of twice"),
    ):
        if wrong:
            raise ValueError(f"{bundle} {problem}: {', '.join(sorted(wrong))}")
    parts = [HEAD]
    for section, keys in meanings.items():
        rows = "".join(f"| `{key}` | {meaning} | {_places(values[key])} |\n" for key, meaning in keys.items())
        parts.append(f"## {section}\n\n| key | meaning | value |\n|---|---|---|\n{rows}")
    parts += [_arguments(key, *component) for key, component in _components(files)]
    return "\n".join(parts)


def read_configs(bundle: Path) -> dict[str, dict[str, Any]]:
    """All configuration files of a bundle, by their names without ending."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (bundle / "configs").glob("*.json")}


def _values(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each key, what each file makes of it; a group of components is a key for each of them too."""
    found: dict[str, dict[str, Any]] = {}
    for file, config in configs.items():
        for key, value in config.items():
            group = isinstance(value, dict) and "_target_" not in value and "_target_" in json.dumps(value)
            found.setdefault(key, {})[file] = "" if group else value
            for part, content in value.items() if group else ():
                if not part.startswith("_"):
                    found.setdefault(f"{key}#{part}", {})[file] = content
    return found


def shown(value: Any) -> str:
    """A value as one writes it down: components as calls; what is too long is cut to its name."""
    text = _written(value)
    if len(text) <= LONGEST:
        return text
    if isinstance(value, dict):
        return f"{value['_target_']}(…)" if "_target_" in value else ", ".join(value)
    return "…"


def _written(value: Any) -> str:
    if isinstance(value, dict):
        items = [(key, _written(item)) for key, item in value.items() if not key.startswith("_")]
        if "_target_" in value:
            return f"{value['_target_']}({', '.join(f'{key}={item}' for key, item in items)})"
        return "{" + ", ".join(f"{key}: {item}" for key, item in items) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def _places(values: Mapping[str, Any]) -> str:
    """The cell of a table: the value of ``train.json``, and what other files make of it."""
    usual = values.get("train")
    changed = {file: value for file, value in values.items() if value != usual}
    by_value: dict[str, tuple[str, list[str]]] = {}
    for file, value in changed.items():
        by_value.setdefault(json.dumps(value), (shown(value), []))[1].append(file)
    lines = [_code(shown(usual))] if "train" in values else []
    lines += [f"{', '.join(files)}: {_code(text)}".removesuffix(": ") for text, files in by_value.values()]
    return "<br>".join(lines)


def _code(text: str) -> str:
    """Text as code in a cell; a bar would end the cell."""
    escaped = text.replace("|", "\\|")
    return f"`{escaped}`" if text else ""


def _components(configs: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, tuple[str, tuple[str, ...]]]]:
    yield from COMPONENTS.items()
    network = configs["train"]["network_def"]["_target_"]
    if network.startswith("medcontext."):
        yield "network_def", (network, ())


def _arguments(key: str, path: str, inner: tuple[str, ...]) -> str:
    """A section on the arguments of a component, from its docstring.

    Raises:
        ValueError: When the docstring leaves one out.
    """
    module, _, name = path.rpartition(".")
    component = getattr(importlib.import_module(module), name)
    told = _told(inspect.getdoc(component) or "")
    rows = []
    for argument, parameter in inspect.signature(component).parameters.items():
        if argument in inner:
            continue
        if argument not in told:
            raise ValueError(f"{path}: its docstring does not tell of the argument {argument}.")
        rows.append(f"| `{argument}` | {_markdown(told[argument])} | {_default(parameter)} |\n")
    return f"## {key}\n\nArguments of `{path}`:\n\n| argument | meaning | default |\n|---|---|---|\n{''.join(rows)}"


def _told(docstring: str) -> dict[str, str]:
    """What a Google docstring says of each argument."""
    section = re.search(r"^Args:\n((?:    .*\n|\n)*)", f"{docstring}\n", flags=re.MULTILINE)
    words = re.split(r"^    (\w+): ", section[1] if section else "", flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(words[::2], words[1::2], strict=True)}


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return ""
    return _code(repr(str(parameter.default) if isinstance(parameter.default, str) else parameter.default))


def _markdown(text: str) -> str:
    plain = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text.removesuffix(".")).replace("``", "`")
    return plain.replace("\\*", "*").replace("|", "\\|")


def main(check: bool = False, write: bool = False) -> None:
    """Compare or write the reference of every bundle; exit code 1 if one is not as it should be.

    Args:
        check: change nothing.
        write: write what the configurations give.
    """
    if check == write:
        sys.exit("config_reference: give either --check or --write")
    stale = []
    for bundle in bundle_folders(BUNDLES):
        document = bundle / "docs" / "reference.md"
        try:
            text = reference(bundle.name, read_configs(bundle))
        except ValueError as error:
            sys.exit(f"config_reference: {error}")
        if not document.is_file() or document.read_text(encoding="utf-8") != text:
            stale.append(document.relative_to(BUNDLES.parent).as_posix())
            if write:
                document.write_text(text, encoding="utf-8")
    for path in stale:
        print(path, "(written)" if write else "is not what the configurations give; --write mends it")
    if stale and check:
        sys.exit(1)


if __name__ == "__main__":
    fire.Fire(main)
