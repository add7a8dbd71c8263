"""What the model zoo's contribution guide and other programs ask of a bundle, one function for each rule.

Each takes an unpacked bundle and yields what is wrong with it, one sentence each.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import yaml
from monai.bundle.properties import InferProperties, TrainProperties
from monai.utils import BundleProperty as Property
from monai.utils import BundlePropertyConfig as Config

from archives import digest
from medcontext.storage.archives import leads_out
from sync_bundles import BUNDLES, bundle_files, sections

SCHEMA = BUNDLES.parent / "ci" / "meta_schema_20240725.json"
LARGEST = 25 * 2**20  # of a file in the zoo's repository; larger ones are listed in large_files.yml
NECESSARY = ("LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md", "docs/data_license.txt")
SECTIONS = (
    ("Model overview", "Model description"),
    ("Data",),
    ("Preprocessing",),
    ("Model configuration", "Training configuration"),
    ("Memory", "System configuration"),
    ("Input",),
    ("Output",),
    ("Performance",),
    ("MONAI Bundle commands",),
    ("References",),
    ("License",),
)
# keys of each configuration; of a nested one by its path
INFERENCE_KEYS = ("bundle_root", "device", "network_def", "inferer", "output_dir")
TRAIN_KEYS = ("bundle_root", "device", "dataset_dir", "output_dir")
PART_KEYS = {
    "train": ("trainer", "trainer#max_epochs", "dataset", "dataset#data", "handlers"),
    "validate": ("evaluator", "handlers", "dataset", "dataset#data"),
}
# where a part is used → under which key of its section it has to be defined
USES = {
    "transform": "preprocessing",
    "postprocessing": "postprocessing",
    "inferer": "inferer",
    "key_train_metric": "key_metric",
    "key_val_metric": "key_metric",
}
PERSONAL = re.compile(r"""(^|['"\s])(/(home|Users|root|mnt|workspace)/|~/|[A-Za-z]:\\)""")


class Bundle(NamedTuple):
    """An unpacked bundle, and the zip that it came from if it did."""

    name: str
    folder: Path
    archive: Path | None = None

    def json(self, path: str) -> Any:
        """A JSON file of the bundle; an empty object where there is none."""
        file = self.folder / path
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def text(self, path: str) -> str:
        """A text of the bundle; empty where there is none."""
        file = self.folder / path
        return file.read_text(encoding="utf-8") if file.is_file() else ""


Rule = Callable[[Bundle], Iterator[str]]


def necessary_files(bundle: Bundle) -> Iterator[str]:
    """The files that every bundle has."""
    yield from (f"{path} is missing or empty" for path in NECESSARY if not bundle.text(path).strip())


def readable_configs(bundle: Bundle) -> Iterator[str]:
    """Configurations are JSON objects in which no key occurs twice."""
    for path in sorted((bundle.folder / "configs").glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
        except ValueError as error:
            yield f"configs/{path.name}: {error}"
            continue
        if not isinstance(content, dict):
            yield f"configs/{path.name} holds a {type(content).__name__}, it must hold an object"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} occurs twice")
    return dict(pairs)


def name(bundle: Bundle) -> Iterator[str]:
    """A folder's name in lower case with underscores, and a name to display."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", bundle.name):
        yield f"{bundle.name} must be words of small letters and digits, joined by underscores"
    if not bundle.json("configs/metadata.json").get("name"):
        yield "configs/metadata.json lacks the name to display"


def metadata_schema(bundle: Bundle) -> Iterator[str]:
    """The metadata follow the schema that they name."""
    metadata, schema = bundle.json("configs/metadata.json"), json.loads(SCHEMA.read_text(encoding="utf-8"))
    if not str(metadata.get("schema")).endswith(f"/{SCHEMA.name}"):
        yield f"configs/metadata.json names the schema {metadata.get('schema')}, expected {SCHEMA.name}"
    for error in jsonschema.validators.validator_for(schema)(schema).iter_errors(metadata):
        yield f"configs/metadata.json: {'#'.join(map(str, error.path)) or 'top level'}: {error.message}"


def version(bundle: Bundle) -> Iterator[str]:
    """A version of three numbers, with ``rc1`` or the like before a release, that the changelog tells of."""
    metadata = bundle.json("configs/metadata.json")
    number = str(metadata.get("version"))
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", number):
        yield f"the version {number} must be three numbers joined by dots"
    if not metadata.get("changelog", {}).get(number):
        yield f"the changelog of configs/metadata.json says nothing of {number}"


def packages(bundle: Bundle) -> Iterator[str]:
    """Every required package has one version."""
    metadata = bundle.json("configs/metadata.json")
    listed = {key: metadata.get(key) for key in ("monai_version", "pytorch_version", "numpy_version")}
    for package, number in {**listed, **metadata.get("required_packages_version", {})}.items():
        if not re.fullmatch(r"\d+(\.\w+)+", str(number)):
            yield f"configs/metadata.json: {package} must have one version, got {number!r}"


def licences(bundle: Bundle) -> Iterator[str]:
    """The licence of the bundle, and a paragraph on every dataset that it has an overlay for."""
    if "Apache License" not in bundle.text("LICENSE"):
        yield "LICENSE is not the Apache License"
    told = re.findall(r"^\w+", bundle.text("docs/data_license.txt").lower(), flags=re.MULTILINE)
    for dataset in ("btcv", "acdc", "brats", "hippocampus"):
        if (bundle.folder / "configs" / f"{dataset}.json").is_file() and dataset not in told:
            yield f"docs/data_license.txt says nothing of {dataset}"


def readme(bundle: Bundle) -> Iterator[str]:
    """The sections of the zoo's README, each with something in it, and only files that are there."""
    text = bundle.text("docs/README.md")
    try:
        found = {heading.lower(): len(part.splitlines()) for heading, part in sections(text).items()}
    except ValueError as error:
        yield f"docs/README.md: {error}"
        return
    for headings in SECTIONS:
        if not any(found.get(heading.lower(), 0) > 1 for heading in headings):
            yield f"docs/README.md lacks the section {' or '.join(headings)}, or it is empty"
    linked = {target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target}
    named = {f"../configs/{file}" for file in re.findall(r"(?<=/configs/)[\w.]+(?:json|conf)", text)}
    for target in sorted(linked | named):
        if not (bundle.folder / "docs" / target).is_file():
            yield f"docs/README.md speaks of {target.removeprefix('../')}, which is not there"


def paths(bundle: Bundle) -> Iterator[str]:
    """No path of somebody's machine in a configuration."""
    for file in sorted((bundle.folder / "configs").glob("*.json")):
        for key, value in _walk(bundle.json(f"configs/{file.name}")):
            if isinstance(value, str) and PERSONAL.search(value):
                yield f"configs/{file.name}: {key} holds a path of somebody's machine: {value}"


def _walk(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a configuration by its path."""
    if isinstance(content, (dict, list)):
        for name, value in content.items() if isinstance(content, dict) else enumerate(content):
            path = f"{key}#{name}".lstrip("#")
            yield path, value
            yield from _walk(value, path)


def inference_keys(bundle: Bundle) -> Iterator[str]:
    """The keys by which other programs find the parts of ``inference.json``."""
    config = bundle.json("configs/inference.json")
    yield from (f"configs/inference.json lacks the key {key}" for key in INFERENCE_KEYS if key not in config)


def train_keys(bundle: Bundle) -> Iterator[str]:
    """The keys by which other programs find the parts of ``train.json``, where there is one."""
    config = bundle.json("configs/train.json")
    if not config:
        return
    missing = [key for key in TRAIN_KEYS if key not in config]
    for part, keys in PART_KEYS.items():
        if part in config:
            names = {key.rpartition("#")[2] for key, _ in _walk(config[part])}
            used = sorted({USES[name] for name in names & USES.keys()})
            missing += [f"{part}#{key}" for key in (*keys, *used) if _at(config[part], key) is None]
    yield from (f"configs/train.json lacks the key {key}" for key in missing)
    for key, value in _walk(config):
        if key.endswith("_target_") and str(value).endswith("ValidationHandler"):
            interval = key.replace("_target_", "interval")
            if "@val_interval" not in str(_at(config, interval)):
                yield f"configs/train.json: {interval} must be taken from @val_interval"


def properties(bundle: Bundle) -> Iterator[str]:
    """What MONAI asks of a training and of an inference is there, and optional parts are under MONAI's names."""
    for file, expected in (("train", TrainProperties), ("inference", InferProperties)):
        config = bundle.json(f"configs/{file}.json")
        for prop, facts in expected.items() if config else ():
            key, user = (str(facts.get(which) or "").replace("::", "#") for which in (Config.ID, Config.REF_ID))
            if facts[Property.REQUIRED] and _at(config, key) is None:
                yield f"configs/{file}.json lacks {key}, where MONAI looks for the property {prop}"
            value = _at(config, user) if user else None
            if isinstance(value, str) and value.startswith("@") and value != f"@{key}":
                yield f"configs/{file}.json: {user} must be @{key}, got {value}"


def consumers(bundle: Bundle) -> Iterator[str]:
    """MONAI Label and MONAI Deploy find the parts of a prediction, its loader, and the names of what it predicts."""
    config, metadata = bundle.json("configs/inference.json"), bundle.json("configs/metadata.json")
    keys = ("preprocessing#transforms", "postprocessing#transforms", "inferer")
    yield from (f"configs/inference.json lacks {key}, which MONAI Label reads" for key in keys if not _at(config, key))
    loader = str(_at(config, "preprocessing#transforms#0#_target_"))
    if "LoadImage" not in loader.rpartition(".")[2]:
        yield f"configs/inference.json: MONAI Deploy knows a loader by LoadImage in the name of its class, got {loader}"
    outputs = metadata["network_data_format"]["outputs"]
    named = {int(index): name.replace(" ", "_") for index, name in outputs["pred"]["channel_def"].items()}
    trained = bundle.json("models/model.json").get("settings", {}).get("labels", {})
    others = [name for name, index in trained.items() if isinstance(index, int) and named.get(index) != name]
    if others:
        yield f"configs/metadata.json: channel_def does not name {', '.join(others)} as models/model.json does"


def _at(config: Mapping[str, Any], path: str) -> Any:
    """What lies under a path, through references on the way; ``None`` if there is nothing."""
    *parents, last = path.split("#")
    content: Any = config
    for key in parents:
        content = _item(content, key)
        if isinstance(content, str) and content.startswith("@"):
            content = _at(config, content[1:])
    return _item(content, last)


def _item(content: Any, key: str) -> Any:
    if isinstance(content, list) and key.isdigit():
        return content[int(key)]
    return content.get(key) if isinstance(content, dict) else None


def file_sizes(bundle: Bundle) -> Iterator[str]:
    """Files of more than 25 MB are listed in ``large_files.yml``."""
    listed = {entry.get("path") for entry in _large_files(bundle)}
    for path in sorted(bundle.folder.rglob("*")):
        relative = path.relative_to(bundle.folder).as_posix()
        if path.is_file() and path.stat().st_size > LARGEST and relative not in listed:
            yield f"{relative} has more than 25 MB and is not in large_files.yml"


def weights(bundle: Bundle) -> Iterator[str]:
    """``models/model.pt`` is there, or can be downloaded, or the README says that there is none."""
    there = (bundle.folder / "models" / "model.pt").is_file()
    listed = "models/model.pt" in {entry.get("path") for entry in _large_files(bundle)}
    told = re.search(r"\bNo weights\b", bundle.text("docs/README.md"))
    if not (there or listed or told):
        yield "models/model.pt is neither there nor in large_files.yml, and docs/README.md does not say so"


def large_files(bundle: Bundle) -> Iterator[str]:
    """Entries of ``large_files.yml`` say where a file belongs, where it comes from, and what its SHA-256 is."""
    for entry in _large_files(bundle):
        path, expected = str(entry.get("path")), str(entry.get("hash_val"))
        file = bundle.folder / path
        if leads_out(path):
            yield f"large_files.yml: {path} leads out of the bundle"
        elif not re.match(r"https?://", str(entry.get("url"))):
            yield f"large_files.yml: the url of {path} must be one of http or https, got {entry.get('url')}"
        elif entry.get("hash_type") != "sha256" or not re.fullmatch("[0-9a-f]{64}", expected):
            yield f"large_files.yml: {path} needs hash_type sha256 and its 64 digits as hash_val"
        elif file.is_file() and digest(file.read_bytes()) != expected:
            yield f"large_files.yml: the SHA-256 of {path} is another"


def _large_files(bundle: Bundle) -> list[dict[str, Any]]:
    return list((yaml.safe_load(bundle.text("large_files.yml")) or {}).get("large_files", []))


def archive(bundle: Bundle) -> Iterator[str]:
    """A zip is named after its bundle and version, holds one folder, and runs without this repository."""
    if bundle.archive is None:
        return
    expected = f"{bundle.name}_v{bundle.json('configs/metadata.json').get('version')}.zip"
    if bundle.archive.name != expected:
        yield f"the zip must be named {expected}"
    with zipfile.ZipFile(bundle.archive) as content:
        outside = [item for item in content.namelist() if item.split("/")[0] != bundle.name]
    yield from (f"{item} lies outside of the folder {bundle.name}" for item in outside)
    for path in ("medcontext/__init__.py", "requirements.txt", "sbom.cdx.json", "eval/schema.json", "SHA256SUMS"):
        if not (bundle.folder / path).is_file():
            yield f"{path} is missing"
    if not list((bundle.folder / "wheels").glob("medcontext-*.whl")):
        yield "wheels/ holds no wheel of medcontext"
    yield from _checksums(bundle)


def _checksums(bundle: Bundle) -> Iterator[str]:
    listed = dict(line.split("  ", 1)[::-1] for line in bundle.text("SHA256SUMS").splitlines())
    files = {path.relative_to(bundle.folder).as_posix(): path for path in bundle.folder.rglob("*") if path.is_file()}
    files.pop("SHA256SUMS", None)
    yield from (f"{path} is in SHA256SUMS, but not there" for path in sorted(set(listed) - set(files)))
    for path in sorted(files):
        if listed.get(path) != digest(files[path].read_bytes()):
            yield f"{path} is not what SHA256SUMS says"


def no_code(bundle: Bundle) -> Iterator[str]:
    """A bundle in the repository holds configurations and documents alone."""
    if bundle.archive is None:
        code = (path for path in sorted(bundle_files(bundle.folder)) if path.endswith((".py", ".pt", ".ts", ".pkl")))
        yield from (f"{path} does not belong in the repository's bundles" for path in code)


RULES: dict[str, Rule] = {
    rule.__name__.replace("_", " "): rule
    for rule in (
        necessary_files,
        readable_configs,
        name,
        metadata_schema,
        version,
        packages,
        licences,
        readme,
        paths,
        inference_keys,
        train_keys,
        properties,
        consumers,
        file_sizes,
        weights,
        large_files,
        archive,
        no_code,
    )
}
