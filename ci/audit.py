"""Look for known vulnerabilities of the packages in constraints.txt, beside those that are accepted with a reason.

bash ci/audit.sh                 ask OSV (https://osv.dev), by pip-audit in an environment of its own
bash ci/audit.sh --url ADDRESS   ask another server of the same interface

Accepted are the advisories in audit_accepted.json, ``{"PYSEC-2026-1": "why it does no harm here"}``. The exit code is 0
if there are no others, 1 if there are or if one of these is not needed any more, and 2 if nothing could be checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fire

ROOT = Path(__file__).parents[1]
CONSTRAINTS, ACCEPTED = ROOT / "constraints.txt", Path(__file__).with_name("audit_accepted.json")
OSV = "https://api.osv.dev/v1/query"


def main(url: str = OSV, constraints: str = str(CONSTRAINTS), accepted: str = str(ACCEPTED)) -> None:
    """Audit the packages and print the advisories that are not accepted."""
    pinned = [line.split("==")[0] for line in Path(constraints).read_text().splitlines() if "==" in line]
    reasons = json.loads(Path(accepted).read_text(encoding="utf-8"))
    options = [
        "--no-deps",
        "--disable-pip",
        "--strict",
        "--format",
        "json",
        "--desc",
        "off",
        "--progress-spinner",
        "off",
    ]
    command = [sys.executable, "-m", "pip_audit", "-r", constraints, "-s", "osv", "--osv-url", url, *options]
    result = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(result.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        print(
            f"audit: Nothing was checked, as pip-audit cannot read the advisories at {url} ({reason}).", file=sys.stderr
        )
        sys.exit(2)
    if unchecked := unchecked_packages(packages, pinned):
        print(f"audit: Not checked were {', '.join(unchecked)}.", file=sys.stderr)
        sys.exit(2)
    problems = audit_problems(packages, reasons)
    print(
        *problems, f"{len(packages)} packages, {len(reasons)} advisories accepted, {len(problems)} problems", sep="\n"
    )
    sys.exit(1 if problems else 0)


def unchecked_packages(packages: list[dict[str, Any]], pinned: list[str]) -> list[str]:
    """Return the pinned packages that a report of pip-audit leaves out or has skipped."""
    checked = {_plain(package["name"]) for package in packages if "skip_reason" not in package}
    return [name for name in pinned if _plain(name) not in checked]


def audit_problems(packages: list[dict[str, Any]], accepted: Mapping[str, str]) -> list[str]:
    """Return a line for each advisory that is not accepted, and for each that is accepted without need or reason.

    Args:
        packages: ``dependencies`` of pip-audit's report.
        accepted: reasons by the id of an advisory, or one of its aliases.
    """
    problems, needed = [], set()
    for package in packages:
        for found in package.get("vulns", []):
            ids = [found["id"], *found.get("aliases", [])]
            needed.update(ids)
            if not any(accepted.get(name, "").strip() for name in ids):
                fixed = f"; fixed in {', '.join(found['fix_versions'])}" if found.get("fix_versions") else "; not fixed"
                problems.append(f"{package['name']} {package['version']}: {', '.join(ids)}{fixed}")
    return problems + [
        f"{name} is accepted, but no package has it any more; remove it from {ACCEPTED.name}"
        for name in accepted
        if name not in needed
    ]


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    fire.Fire(main)
