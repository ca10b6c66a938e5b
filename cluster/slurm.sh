#!/usr/bin/env bash
# PPOFlow on Slurm: one task a GPU. Preempted, or at the end of its time, the run saves, and the job queues again and goes on.
#   sbatch cluster/slurm.sh configs/ppoflow_n100.yaml [options of genvla fit]
#   sbatch --nodes 2 cluster/slurm.sh configs/ppoflow_n100.yaml --data.num_envs 12 --data.minibatch_size 120
# The run's folder is runs/<configuration>-<job>, or $RUN_DIR. MLFLOW_TRACKING_URI names the MLflow server.
#SBATCH --job-name=genvla
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=10
#SBATCH --mem=240G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
#SBATCH --output=%x-%j.log
set -uo pipefail
if [ "$#" -lt 1 ]; then
    echo "usage: sbatch cluster/slurm.sh CONFIG [options of genvla fit]" >&2
    exit 2
fi
config=$1
shift
run_dir=${RUN_DIR:-runs/$(basename "${config%.yaml}")-$SLURM_JOB_ID}

# Slurm starts a copy of this script, so the other one is found from the folder that the job was submitted in.
srun --kill-on-bad-exit=0 "${SLURM_SUBMIT_DIR:-.}/cluster/train.sh" "$config" "$run_dir" \
    --hardware.devices "$SLURM_NTASKS_PER_NODE" --hardware.num_nodes "$SLURM_NNODES" "$@" &
step=$!
told=0
trap 'told=$((told + 1)); kill -TERM "$step"' TERM   # the signal comes to this script alone; srun passes it on to all tasks

code=127
while true; do
    before=$told
    wait "$step"
    now=$?
    if [ "$now" -ne 127 ]; then code=$now; fi   # 127: waited for already
    # A trapped signal ends `wait` too; what srun ended with, the next one tells.
    if [ "$told" -eq "$before" ]; then break; fi
done
if [ "$code" -eq 75 ]; then
    echo "genvla: saved in $run_dir; job $SLURM_JOB_ID queues again"
    scontrol requeue "$SLURM_JOB_ID" || exit 1
fi
exit "$code"
