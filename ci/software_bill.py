"""The software bill of materials of a packed bundle, in CycloneDX: its copy of medcontext, and all Python packages."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from archives import digest

# the same list wherever it is written: packages that only other systems or Pythons need are left out
SYSTEM = {
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
    "python_version": "3.11",
    "python_full_version": "3.11.0",
    "extra": "",
}


def software_bill(
    name: str, version: str, declared: Mapping[str, str], pins: Mapping[str, str], wheel: Path, epoch: int
) -> str:
    """Write the bill.

    Args:
        name: of the bundle.
        version: of the bundle.
        declared: the packages that its metadata requires, with versions.
        pins: the versions of these and of all that they need, see :func:`pinned`.
        wheel: of medcontext, which the bundle holds.
        epoch: seconds since 1970, the time to state.

    Returns:
        CycloneDX 1.6 as JSON; the same for the same arguments.

    Raises:
        ValueError: When a package is not installed here, so that what it needs is unknown.
    """
    needs = _needs(declared, pins)
    versions = {**pins, **{canonicalize_name(package): number for package, number in declared.items()}}
    components = {package: _component(package, versions[package]) for package in needs}
    root = Component(name=name, version=version, type=ComponentType.APPLICATION, bom_ref=name)
    held, own = digest(wheel.read_bytes()), [components[canonicalize_name(package)] for package in declared]
    medcontext = _held(wheel, held)
    bill = Bom(
        serial_number=uuid5(NAMESPACE_URL, f"{name}@{version}:{held}:{sorted(versions[p] for p in needs)}"),
        metadata=BomMetaData(component=root, timestamp=datetime.fromtimestamp(epoch, UTC)),
        components=[medcontext, *components.values()],
    )
    bill.register_dependency(root, [medcontext, *own])
    bill.register_dependency(medcontext, own)
    for package, others in needs.items():
        bill.register_dependency(components[package], [components[other] for other in others])
    return JsonV1Dot6(bill).output_as_string(indent=2) + "\n"


def pinned(constraints: str) -> dict[str, str]:
    """The versions in a file of constraints, by normalised name."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", constraints, flags=re.MULTILINE)
    return {canonicalize_name(package): number for package, number in lines}


def _component(package: str, version: str) -> Component:
    url = PackageURL("pypi", None, package, version)
    return Component(name=package, version=version, purl=url, bom_ref=str(url))


def _held(wheel: Path, sha256: str) -> Component:
    """The package that comes with the bundle, and not from PyPI."""
    name, version, *_ = parse_wheel_filename(wheel.name)
    url = PackageURL("generic", None, name, str(version))
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=sha256)]
    return Component(name=name, version=str(version), purl=url, bom_ref=str(url), hashes=hashes)


def _needs(declared: Iterable[str], pins: Mapping[str, str]) -> dict[str, list[str]]:
    """The declared packages and, through all levels, what they need; what the pins lack belongs to a system."""
    found: dict[str, list[str]] = {}
    waiting = [canonicalize_name(package) for package in declared]
    while waiting:
        package = waiting.pop()
        if package not in found:
            found[package] = [other for other in _requirements(package) if other in pins]
            waiting += found[package]
    return found


def _requirements(package: str) -> list[str]:
    try:
        lines = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(
            f"{package} is not installed; run pip install -c constraints.txt -e '.[dev]' first."
        ) from error
    parsed = [Requirement(line) for line in lines]
    return sorted({canonicalize_name(r.name) for r in parsed if r.marker is None or r.marker.evaluate(SYSTEM)})
