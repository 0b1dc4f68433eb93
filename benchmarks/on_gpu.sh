#!/usr/bin/env bash
# Everything that wants a GPU, in about five minutes: a step eager, recorded and compiled, its memory, streams, the GPU's
# tests. Run it from anywhere, on a machine with a GPU; it rewrites the GPU's sections of docs/benchmarks.md. Where one
# part fails the others still run, and the exit status says so. Results of another machine are dropped.
#
#   benchmarks/on_gpu.sh              # all of it
#   ROUNDS=3 benchmarks/on_gpu.sh     # quicker
#   PYTHON=python3 benchmarks/on_gpu.sh    # a path is one from the project's folder
#
# It wants torch built for the GPU; the environment that `make` sets up has torch for processors alone. With an
# onnxruntime that has CUDA, steps in onnxruntime are timed too, and docs/onnx.md is rewritten.
set -uo pipefail
case ${1:-} in
  "") ;;
  *) sed -n '1d; /^set /q; /^# \?/s///p' "$0"; exit 2 ;;
esac
cd "$(dirname "$0")/.." || exit 1
PYTHON=${PYTHON:-.venv/bin/python}
ROUNDS=${ROUNDS:-7}
"$PYTHON" -c 'import altprop' || { echo "$PYTHON has no altprop: make the environment, or set PYTHON." >&2; exit 1; }
"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  { "$PYTHON" -c 'import torch; print(f"torch {torch.__version__} sees no GPU here.")' >&2; exit 1; }

failed=()
part() {
  echo "== $*"
  "$@" || failed+=("$*")
}
# Small networks first, and each by itself: what is measured is kept, whatever happens to the next.
for only in "MLP*" "ResNet-20*" "GPT*" "ResNet-50*"; do
  part "$PYTHON" -m benchmarks run gpu --only "$only" --replace --rounds "$ROUNDS"
done
part "$PYTHON" -m benchmarks run streams --replace --rounds "$ROUNDS"
if "$PYTHON" -c 'import sys, onnxruntime as o; sys.exit("CUDAExecutionProvider" not in o.get_available_providers())' \
  2>/dev/null; then
  part "$PYTHON" -m benchmarks run onnx_step_gpu --replace --rounds "$ROUNDS"
fi
part "$PYTHON" -m pytest -q tests/systems/test_gpu.py tests/systems/test_gpu_schedule.py tests/systems/test_gpu_session.py

if ((${#failed[@]})); then
  echo "failed, or lost ground:"
  printf '  %s\n' "${failed[@]}"
  exit 1
fi
