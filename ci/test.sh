#!/usr/bin/env bash
# Install everything and run the checks and tests. "--all" adds the slow ones; other arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source ci/install.sh
install_medcontext dev
install_browser

selection=(-m "not slow")
if [ "${1:-}" = --all ]; then
    selection=()
    shift
fi
# the tests' networks are too small for threads, which only get in each other's way; whole tests run side by side
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest --numprocesses 2 --dist loadgroup ${selection[@]+"${selection[@]}"} "$@"
