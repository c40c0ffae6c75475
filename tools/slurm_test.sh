#!/usr/bin/env bash
# Evaluate on a Slurm cluster: the sequences are shared out, results are the same.
#   GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS="" bash tools/slurm_test.sh PARTITION JOB CONFIG CHECKPOINT --task TASK [arguments]
set -euo pipefail
if [ $# -lt 4 ]; then
  echo "usage: $0 PARTITION JOB CONFIG CHECKPOINT --task TASK [arguments of tools/test.py]" >&2
  exit 2
fi
partition=$1 job=$2 config=$3 checkpoint=$4
shift 4
gpus=${GPUS:-8} per_node=${GPUS_PER_NODE:-8}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2086
exec srun -p "$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
  --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  python -u "$here/test.py" "$config" "$checkpoint" --launcher slurm "$@"
