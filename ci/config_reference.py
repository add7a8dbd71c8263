"""Write the tables of configuration keys in shared/docs/reference.md from the configurations themselves.

python ci/config_reference.py --check     report whether the tables differ from the configurations
python ci/config_reference.py --write     write them

Meanings of keys come from config_keys.json, those of the arguments of our components from their docstrings. A packaged
bundle gets tables of its own configurations.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import fire

from sync_bundles import BUNDLES, REFERENCE, bundle_folders

DOCUMENT = BUNDLES.parent / "shared" / "docs" / "reference.md"
VALUES = "Values are those of `{bundle}`; where other bundles differ, the sections at the end give theirs.\n"
BEGIN = "<!-- keys: python ci/config_reference.py --write -->\n"
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


Configs = Mapping[str, Mapping[str, Any]]


def key_tables(bundle: str, configs: Configs, others: Mapping[str, Configs] | None = None) -> str:
    """Tables of all keys with their values in a bundle, and of the values that differ in others.

    Args:
        bundle: Name of the bundle.
        configs: Content of its configuration files, by their names without ending.
        others: The same of further bundles, by name.

    Raises:
        ValueError: If a key of the configurations has no meaning, or a meaning no key.
    """
    meanings = json.loads(MEANINGS.read_text(encoding="utf-8"))
    values = _cells(bundle, configs, meanings)
    parts = [VALUES.format(bundle=bundle)] if others else []
    for section, keys in meanings.items():
        rows = "".join(f"| `{key}` | {meaning} | {values[key]} |\n" for key, meaning in keys.items())
        parts.append(f"## {section}\n\n| key | meaning | value |\n|---|---|---|\n{rows}")
    network = "network_def"
    parts += [_arguments(f"## {key}", *component) for key, component in _components(configs)]
    for name, content in (others or {}).items():
        cells = _cells(name, content, meanings)
        rows = "".join(f"| `{key}` | {cells[key]} |\n" for key in values if cells[key] != values[key])
        parts.append(f"## Values of {name}\n\n| key | value |\n|---|---|\n{rows}")
        own = dict(_components(content)).get(network)
        parts += [_arguments(f"### {network} of {name}", *own)] if own else []
    return "\n".join(parts)


def with_key_tables(text: str, tables: str) -> str:
    """Put tables in the place of those of the document.

    Raises:
        ValueError: If the document has no place for them.
    """
    head, mark, _ = text.partition(BEGIN)
    if not mark:
        raise ValueError(f"{DOCUMENT.name} has no place for the tables; put the line {BEGIN.strip()} at its end.")
    return f"{head}{mark}\n{tables}"


def _cells(bundle: str, configs: Configs, meanings: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The value of each key as a cell, in the order of the meanings."""
    values = _values({name: configs[name] for name in (*ENTRIES, *OVERLAYS)})
    known = [key for section in meanings.values() for key in section]
    for wrong, problem in (
        (values.keys() - set(known), "has keys without a meaning in config_keys.json"),
        (set(known) - values.keys(), "lacks keys that config_keys.json explains"),
        ({key for key in known if known.count(key) > 1}, "has keys that config_keys.json explains twice"),
    ):
        if wrong:
            raise ValueError(f"{bundle} {problem}: {', '.join(sorted(wrong))}")
    return {key: _places(values[key]) for key in known}


def configs_of(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """All configuration files among those of a bundle, by their names without ending."""
    paths = [path for path in files if path.startswith("configs/") and path.endswith(".json")]
    return {PurePosixPath(path).stem: json.loads(files[path]) for path in paths}


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


def _arguments(heading: str, path: str, inner: tuple[str, ...]) -> str:
    """A section on the arguments of a component, from its docstring.

    Raises:
        ValueError: When the docstring leaves one out.
    """
    module, _, name = path.rpartition(".")
    component = getattr(importlib.import_module(module), name)
    meanings = _meanings(inspect.getdoc(component) or "")
    rows = []
    for argument, parameter in inspect.signature(component).parameters.items():
        if argument in inner:
            continue
        if argument not in meanings:
            raise ValueError(f"{path}: its docstring does not explain the argument {argument}.")
        rows.append(f"| `{argument}` | {_markdown(meanings[argument])} | {_default(parameter)} |\n")
    return f"{heading}\n\nArguments of `{path}`:\n\n| argument | meaning | default |\n|---|---|---|\n{''.join(rows)}"


def _meanings(docstring: str) -> dict[str, str]:
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
    """Compare or write the tables; exit code 1 if they are not what the configurations give.

    Args:
        check: Change nothing.
        write: Write what the configurations give.
    """
    if check == write:
        sys.exit("config_reference: give either --check or --write")
    configs = {bundle.name: read_configs(bundle) for bundle in bundle_folders(BUNDLES)}
    old = DOCUMENT.read_text(encoding="utf-8")
    try:
        new = with_key_tables(old, key_tables(REFERENCE, configs.pop(REFERENCE), configs))
    except ValueError as error:
        sys.exit(f"config_reference: {error}")
    if new == old:
        return
    print(DOCUMENT.name, "(written)" if write else "differs from the configurations; --write mends it")
    if check:
        sys.exit(1)
    DOCUMENT.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    fire.Fire(main)
