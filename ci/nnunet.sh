#!/usr/bin/env bash
# Train nnU-Net v2 on the labelled cases of the table's runs, for as much processor time, and put its Dice beside theirs.
# It gets an environment of its own, .venv-nnunet. Arguments are those of `python ci/nnunet.py run --help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source ci/install.sh
install_medcontext dev
version=2.8.1
if [ ! -f ".venv-nnunet/.installed-$version" ]; then
    echo "Installing nnU-Net $version into .venv-nnunet (a few minutes the first time) ..."
    "${PYTHON:-python3}" -m venv .venv-nnunet
    # the same PyTorch, and the same build of it
    .venv-nnunet/bin/pip install --quiet "torch==$(.venv/bin/python -c 'import torch; print(torch.__version__)')" \
        "nnunetv2==$version" ||
        .venv-nnunet/bin/pip install --quiet "$(grep '^torch==' constraints.txt)" "nnunetv2==$version"
    touch ".venv-nnunet/.installed-$version"
fi
exec .venv/bin/python ci/nnunet.py run "$@"
