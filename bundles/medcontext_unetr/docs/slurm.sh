#!/usr/bin/env bash
# Train on all GPUs of a Slurm job. Submit it from the repository's root, or from inside a downloaded bundle:
#     sbatch bundles/medcontext_unetr/docs/slurm.sh --dataset_dir /data/btcv
# Overrides follow. --export=ALL,RUN=name before the script names the run; the same name goes on where a job ended.
#SBATCH --job-name=medcontext
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

bundle=bundles/medcontext_unetr
[ -d "$bundle" ] || bundle=.
home=${MEDCONTEXT_HOME:-$PWD}
run=${RUN:-slurm-$SLURM_JOB_ID}
files="'$bundle/configs/train.json','$bundle/configs/multi_gpu_train.json'"
if [ -f "$home/runs/medcontext_unetr/$run/models/last.pt" ]; then
    files+=",'$bundle/configs/resume.json'"
fi
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "$SLURM_GPUS_ON_NODE" \
    --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$head:${PORT:-29500}" \
    -m monai.bundle run training --config_file "[$files]" --run_name "$run" "$@"
