"""A run on two ranks, one of which may be killed: `torchrun --nproc-per-node 2 killed_ranks.py FOLDER RANK CALLS`.

It goes on from the last checkpoint in the folder. `RANK` is killed when it has called so many functions since training
began; -1 kills none. At the end each rank writes what it holds.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch
import torch.distributed as dist
from kills import die_after
from ranks import batches, fresh, held

STEPS = 12
TIMEOUT = timedelta(seconds=60)


def main(folder: Path, dying: int, calls: int) -> None:
    """Trains to the last step."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=TIMEOUT)
    net = fresh("mlp", "reclra")
    runtime = net.schedule(devices=2, microbatches=2, batch=8).runtime("distributed")
    done = runtime.resume(folder)
    if dist.get_rank() == dying:
        die_after(calls)
    for batch in batches("mlp", STEPS)[done:]:
        runtime.step(*batch)
        runtime.save(folder)
    torch.save(held(net, runtime.held), folder / f"end{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
