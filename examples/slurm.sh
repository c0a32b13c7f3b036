#!/bin/bash
# Train on several machines under Slurm, a launcher on each, a process for each of its GPUs.
#
#     sbatch examples/slurm.sh --cfg configs/inline_deit_t.yaml --data-path DATA --output RUNS
#
# from the repository's folder; DATA and RUNS are on storage that all machines share. What follows the script's name
# goes to train_paddle.py. Three minutes before the time is up Slurm sends SIGTERM: the run saves and ends, and the same
# command goes on from there, as it does when Slurm itself starts the job again after a machine failed.
#SBATCH --job-name=inline
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=1-00:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.log
set -euo pipefail

# The launcher's master is an address, not a name: the first machine's, as that machine itself resolves its name.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$first" \
    python -c 'import socket; print(socket.gethostbyname(socket.getfqdn(socket.gethostname())))')
port=$((20000 + SLURM_JOB_ID % 20000))  # a port for each job

# The ranks' own output goes to a folder for each machine. `exec`: SIGTERM reaches the launcher.
export address port
srun --kill-on-bad-exit=1 bash -c 'exec python -m paddle.distributed.launch \
    --nnodes "$SLURM_JOB_NUM_NODES" --master "$address:$port" --job_id "$SLURM_JOB_ID" \
    --log_dir "slurm-logs/$SLURM_JOB_ID/$SLURM_NODEID" train_paddle.py --resume auto "$@"' train "$@"
