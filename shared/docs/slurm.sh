#!/usr/bin/env bash
# Train on all GPUs of a Slurm job. Submit it from the repository's root:
#     sbatch --export=ALL,RUN_NAME=study,OVERLAYS="acdc baseline" shared/docs/slurm.sh
# BUNDLE chooses the bundle's folder; arguments behind the script override keys. A job that is requeued, or submitted
# again under the same RUN_NAME with as many GPUs, resumes the run from its last save.
#SBATCH --job-name=medcontext
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
set -euo pipefail

bundle=${BUNDLE:-bundles/medcontext_unetr}
files="'$bundle/configs/train.json',"
for overlay in ${OVERLAYS:-}; do
    files+="'$bundle/configs/$overlay.json',"
done
files+="'$bundle/configs/auto_resume.json','$bundle/configs/multi_gpu_train.json'"
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000)) # of its own for each job that shares a node

srun --cpus-per-task "$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 \
    torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "$SLURM_GPUS_ON_NODE" \
    --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$first_node:$port" \
    -m monai.bundle run training --config_file "[$files]" --run_name "${RUN_NAME:-slurm-$SLURM_JOB_ID}" "$@"
