#!/usr/bin/env bash
# Look for known vulnerabilities of what constraints.txt pins; pip-audit gets an environment of its own, .venv-audit.
# Arguments are those of `python ci/audit.py --help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=2.10.1
if [ ! -f ".venv-audit/.installed-$version" ]; then
    "${PYTHON:-python3}" -m venv .venv-audit
    .venv-audit/bin/pip install --quiet "pip-audit==$version" fire
    touch ".venv-audit/.installed-$version"
fi
exec .venv-audit/bin/python ci/audit.py "$@"
