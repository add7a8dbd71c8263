#!/usr/bin/env bash
# From a fresh clone to a trained network: install, get or generate scans, train, evaluate, predict, and say where all
# lies. What is there already is reused: call it again after an interruption.
# Usage: ci/quickstart.sh [BUNDLE [DATASET]], medcontext_unetr and btcv unless given
#        DATASET: hippocampus (real scans, downloaded where there is a network), or generated ones of btcv, acdc, brats
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bundle=${1:-medcontext_unetr}
dataset=${2:-btcv}
if [ ! -d "bundles/$bundle/configs" ]; then
    echo "There is no bundle $bundle; take one of $(ls bundles | xargs)." >&2
    exit 1
fi
case $dataset in
    btcv | acdc | brats | hippocampus) ;;
    *) echo "There is no dataset $dataset; take btcv, acdc, brats or hippocampus." >&2; exit 1 ;;
esac
source ci/install.sh
install_medcontext

python=$PWD/.venv/bin/python
configs=bundles/$bundle/configs
home=${MEDCONTEXT_HOME:-$PWD}
data=$home/data/${dataset}_phantoms
run_name=quickstart
[ "$dataset" = btcv ] || run_name=quickstart_${dataset}_phantoms
# MONAI warns that a configuration is code; these are ours
export PYTHONWARNINGS="ignore:parsing config_file:UserWarning"

run_bundle() { # entry, file names, further arguments
    local entry=$1 files="" name
    for name in $2; do files+="'$configs/$name.json',"; done
    shift 2
    "$python" -m monai.bundle run "$entry" --config_file "[${files%,}]" "$@"
}

can_download() { # whether the Decathlon's archive is there, or its server can be reached
    [ -f "$home/data/Task04_Hippocampus.tar" ] || "$python" - 2>/dev/null <<'EOF'
import urllib.request
from monai.apps import DecathlonDataset
urllib.request.urlopen(DecathlonDataset.resource["Task04_Hippocampus"], timeout=10)
EOF
}

echo "== 1/4 scans"
if [ "$dataset" = hippocampus ] && { [ -f "$home/data/hippocampus/dataset.json" ] || can_download; }; then
    data=$home/data/hippocampus
    run_name=quickstart_hippocampus
    [ -f "$data/dataset.json" ] || "$python" -m medcontext prepare --dataset hippocampus --source "$home/data" \
        --download True --output_dir "$data"
    scans="real scans: brain MR of the Medical Segmentation Decathlon, Task04 (CC-BY-SA 4.0; Antonelli et al. 2022)"
else
    [ "$dataset" != hippocampus ] ||
        echo "The real scans cannot be downloaded, for their server cannot be reached; generated ones take their place."
    "$python" -m medcontext phantoms --dataset "$dataset" --output_dir "$data"
    scans="generated phantoms, no patients"
fi
run=$home/runs/$bundle/$run_name
mkdir -p "$run"
[ -f "$run/crops.png" ] || "$python" -m medcontext preview --dataset_dir "$data" --output "$run/crops.png" \
    --config_file "['$configs/train.json','$configs/$dataset.json','$configs/phantom.json']"

echo "== 2/4 training (7 to 20 minutes on two cores); what it sees: $run/crops.png"
if [ -f "$run/trained" ]; then
    echo "already trained: $run"
else
    run_bundle training "train $dataset phantom auto_resume" --dataset_dir "$data" --run_name "$run_name"
    touch "$run/trained"
fi

echo "== 3/4 evaluation"
[ -f "$run/evaluation/report.html" ] ||
    run_bundle evaluating "train $dataset phantom evaluate" --dataset_dir "$data" --ckpt_dir "$run/models"

echo "== 4/4 prediction and preview"
[ -n "$(ls "$run/predictions" 2>/dev/null)" ] ||
    run_bundle inferring "inference $dataset phantom" --dataset_dir "$data" --ckpt_dir "$run/models"
"$python" -m medcontext preview --config_file "['$configs/train.json','$configs/$dataset.json','$configs/phantom.json']" \
    --dataset_dir "$data" --ckpt_dir "$run/models" --output "$run/preview.png"

cat <<EOF

Done, on $scans. Research use only; not a medical device.
  checkpoint    $run/models/model.pt   (the teacher beside it: teacher.pt)
  report        $run/evaluation/report.html   (open it in a browser)
  figures       $run/evaluation/overlay_*.png, $run/preview.png
  predictions   $run/predictions/*.nii.gz   (open them over the images in $data)
  MLflow        .venv/bin/mlflow ui --backend-store-uri sqlite:///$home/mlruns.db
                then http://127.0.0.1:5000, "Model training" at the top left
  TensorBoard   .venv/bin/tensorboard --logdir $home/runs
EOF
