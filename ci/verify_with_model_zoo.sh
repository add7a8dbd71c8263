#!/usr/bin/env bash
# Run the model zoo's own verify_bundle.py, unchanged, on the packed bundles that carry weights. It needs the packages
# of "dev" and no others: jsonschema is what MONAI checks the metadata with.
# Usage: ci/verify_with_model_zoo.sh ZIPS [SCRIPTS], a folder of zips, and one of the zoo's scripts instead of a download
set -euo pipefail
if [ $# -lt 1 ]; then
    sed -n 's/^# Usage/usage/p' "${BASH_SOURCE[0]}" >&2
    exit 1
fi
commit=17e7879cb1b464912fdc47c8cff6a5497f7cdc36
python=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin/python
[ -x "$python" ] || python=python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/ci" "$work/models"
for name in verify_bundle.py bundle_custom_data.py utils.py; do
    if [ -n "${2:-}" ]; then
        cp "$2/$name" "$work/ci/"
    else
        curl --fail --silent --show-error --retry 3 --output "$work/ci/$name" \
            "https://raw.githubusercontent.com/Project-MONAI/model-zoo/$commit/ci/$name"
    fi
done
echo '{}' >"$work/models/model_info.json" # the versions that the zoo has already

for zip in "$1"/*_phantom_v*.zip; do
    [ -f "$zip" ] || { echo "$1 holds no *_phantom_v*.zip; pack the bundles with weights first." >&2; exit 1; }
    bundle=$(basename "$zip")
    bundle=${bundle%_v*}
    "$python" -m zipfile -e "$zip" "$work/models"
    mode=full
    # TorchScript does not compile MONAI's SwinUNETR, which the zoo has on a list of exceptions by its bundle's name
    [ "$bundle" != medcontext_swin_unetr_phantom ] || mode=min
    (cd "$work" && "$python" ci/verify_bundle.py --b "$bundle" --p models --mode "$mode")
done
