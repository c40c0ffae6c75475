#!/usr/bin/env bash
# Evaluate with several GPUs (or CPU processes) of one machine: the sequences are shared out, results are the same.
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS --task TASK [arguments of tools/test.py]
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "usage: $0 CONFIG CHECKPOINT GPUS --task TASK [arguments of tools/test.py]" >&2
  exit 2
fi
config=$1 checkpoint=$2 gpus=$3
shift 3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
port=${PORT:-$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')}
exec python -m torch.distributed.run \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$gpus" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="$port" \
  "$here/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
