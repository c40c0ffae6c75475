#!/usr/bin/env bash
# Everything that can be measured on one CUDA machine, in one call of at most eight minutes.
#   bash tools/benchmarks/gpu.sh [--python PYTHON] [--device cuda|cpu] [--tiny] [--out DIR] [--budget SECONDS]
# Needs Python 3.10 or newer with PyTorch for CUDA and Triton; nothing is installed or downloaded, and mmliir itself need
# not be installed. Training and whole videos need an engine besides (requirements/constraints-mm.txt); without it they
# are recorded as failed, and the rest is measured. Writes DIR/gpu.json and DIR/gpu.md (default: work_dirs/gpu).
# Exit code: 0 all measured, 1 something was not (see gpu.md), 2 nothing could start.
# On any machine, to see that it works: bash tools/benchmarks/gpu.sh --device cpu --tiny
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

fail() {
  echo "gpu.sh: error: $*" >&2
  exit 2
}

python=${PYTHON:-}
device=cuda
budget=465  # and some seconds to look at the environment
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --python | --device | --out | --budget)
      [ $# -ge 2 ] || fail "$1 needs a value"
      case $1 in
        --python) python=$2 ;;
        --device) device=$2 ;;
        --budget) budget=$2 ;;
        --out) arguments+=(--out "$2") ;;
      esac
      shift 2
      ;;
    --tiny)
      arguments+=(--tiny)
      shift
      ;;
    --sections)
      arguments+=("$@")
      break
      ;;
    -h | --help)
      sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) fail "unknown option $1: --python, --device, --tiny, --out, --budget (--help explains them)" ;;
  esac
done
case $device in cuda | cpu) ;; *) fail "--device: expected cuda or cpu, got $device" ;; esac
case $budget in '' | 0 | *[!0-9]*) fail "--budget: expected whole seconds above 0, got '$budget'" ;; esac

if [ -z "$python" ]; then
  python=$root/.venv/bin/python
  [ -x "$python" ] || python=python3
fi
command -v "$python" >/dev/null || fail "$python not found: name a Python 3.10 or newer with --python"
"$python" - "$device" <<'CHECK' || exit 2
import importlib.util
import sys


def fail(text):
    sys.exit(f'gpu.sh: error: {text}')


if sys.version_info < (3, 10):
    fail(f'{sys.executable} is Python {sys.version.split()[0]}: expected 3.10 or newer; name another with --python')
missing = [name for name in ('torch', 'numpy', 'packaging') if importlib.util.find_spec(name) is None]
if missing:
    fail(
        f'{sys.executable} has no {", ".join(missing)}: name a Python that has them with --python, or install '
        'requirements/constraints-mm.txt'
    )
if sys.argv[1] == 'cuda':
    import torch

    if not torch.cuda.is_available():
        fail(
            f'PyTorch {torch.__version__} of {sys.executable} sees no GPU. Is the driver loaded (nvidia-smi)? Is '
            'CUDA_VISIBLE_DEVICES empty? Is this a build for CPUs? `--device cpu --tiny` tries everything without a GPU'
        )
    if importlib.util.find_spec('triton') is None:
        print(
            'gpu.sh: warning: Triton is not installed (PyTorch for CUDA brings it; pip install triton): the kernel and '
            'compiled code will be recorded as failed',
            file=sys.stderr,
        )
CHECK

# Sections keep to their parts of the time by themselves; this ends a run that hangs.
limit=()
if command -v timeout >/dev/null; then
  limit=(timeout --kill-after=5 "$((budget + 10))")
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${limit[@]}" "$python" "$here/gpu.py" --device "$device" --budget "$budget" "${arguments[@]}"
