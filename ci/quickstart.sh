#!/usr/bin/env bash
# From a fresh clone to a trained network: install, generate a cohort, train, evaluate, predict, and say where all lies.
# What is there already is reused: call it again after an interruption.
# Usage: ci/quickstart.sh [BUNDLE], medcontext_unetr unless given
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bundle=${1:-medcontext_unetr}
if [ ! -d "bundles/$bundle/configs" ]; then
    echo "There is no bundle $bundle; take one of $(ls bundles | xargs)." >&2
    exit 1
fi
source ci/install.sh
install_medcontext

python=$PWD/.venv/bin/python
configs=bundles/$bundle/configs
home=${MEDCONTEXT_HOME:-$PWD}
data=$home/data/btcv_phantoms
run=$home/runs/$bundle/quickstart
# MONAI warns that a configuration is code; these are ours
export PYTHONWARNINGS="ignore:parsing config_file:UserWarning"

run_bundle() { # entry, file names, further arguments
    local entry=$1 files="" name
    for name in $2; do files+="'$configs/$name.json',"; done
    shift 2
    "$python" -m monai.bundle run "$entry" --config_file "[${files%,}]" "$@"
}

echo "== 1/4 generated cohort"
"$python" -m medcontext phantoms --output_dir "$data"

echo "== 2/4 training (7 to 20 minutes on two cores)"
if [ -f "$run/trained" ]; then
    echo "already trained: $run"
else
    run_bundle training "train btcv phantom auto_resume" --dataset_dir "$data" --run_name quickstart
    touch "$run/trained"
fi

echo "== 3/4 evaluation"
[ -f "$run/evaluation/report.html" ] ||
    run_bundle evaluating "train btcv phantom evaluate" --dataset_dir "$data" --ckpt_dir "$run/models"

echo "== 4/4 prediction and preview"
[ -n "$(ls "$run/predictions" 2>/dev/null)" ] ||
    run_bundle inferring "inference btcv phantom" --dataset_dir "$data" --ckpt_dir "$run/models"
"$python" -m medcontext preview --config_file "['$configs/train.json','$configs/phantom.json']" \
    --dataset_dir "$data" --ckpt_dir "$run/models" --output "$run/preview.png"

cat <<EOF

Done. Research use only; not a medical device.
  checkpoint    $run/models/model.pt   (the teacher beside it: teacher.pt)
  report        $run/evaluation/report.html   (open it in a browser)
  figures       $run/evaluation/overlay_*.png, $run/preview.png
  predictions   $run/predictions/*.nii.gz   (open them over the images in $data/Training/img)
  MLflow        .venv/bin/mlflow ui --backend-store-uri sqlite:///$home/mlruns.db   then http://127.0.0.1:5000
  TensorBoard   .venv/bin/tensorboard --logdir $home/runs
EOF
