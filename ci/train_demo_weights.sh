#!/usr/bin/env bash
# Train the small model on phantoms whose weights go with a release: OUT/<bundle>/model.pt, and what it scored.
# Fails for weights that are too bad to be published.
# Usage: ci/train_demo_weights.sh OUT [BUNDLE ...], all bundles unless some are named
set -euo pipefail
if [ $# -lt 1 ]; then
    sed -n 's/^# Usage/usage/p' "${BASH_SOURCE[0]}" >&2
    exit 1
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -gt 0 ] || set -- $(ls bundles)
for bundle in "$@"; do
    bash ci/quickstart.sh "$bundle"
    run=${MEDCONTEXT_HOME:-$PWD}/runs/$bundle/quickstart
    mkdir -p "$out/$bundle"
    cp "$run/models/model.pt" "$run/evaluation/summary.json" "$out/$bundle/"
    .venv/bin/python ci/phantom_bundle.py "$out/$bundle/model.pt"
done
