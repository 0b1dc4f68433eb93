#!/usr/bin/env bash
# Everything that wants a GPU, in about five minutes: the GPU tests, a step eager, recorded and compiled, streams, memory.
# Run it from the checkout on a machine with one; it rewrites the GPU's sections of docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || { echo "torch sees no GPU here." >&2; exit 1; }
"$PYTHON" -m pytest -q tests/systems/test_gpu.py tests/systems/test_gpu_schedule.py tests/systems/test_gpu_session.py
"$PYTHON" -m benchmarks run gpu_step streams
"$PYTHON" - <<'END'
import torch
import altprop
from altprop import models

x, y = torch.randn(64, 3, 32, 32, device="cuda"), torch.randint(10, (64,), device="cuda")
for rule in ("bp", "dfa", "reclra", "drtp"):
    model = models.build("resnet20", (3, 32, 32)).cuda()
    net = altprop.compile(model, rule, example_inputs=(x,), optimizer=altprop.optim.SGD(lr=0.01, momentum=0.9))
    net.step(x, y)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    net.step(x, y)
    print(f"{rule}: {(torch.cuda.max_memory_allocated() - before) / 2**20:.1f} MiB at the peak of a step")
END
