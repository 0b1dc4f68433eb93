"""Tasks of a step in the order of the reference run, and what each has to wait for.

A task waits for another because of what they read and write, and for no other reason: RAW (it reads what the other
made), WAR (it changes what the other reads), WAW (both change the same value). The reference order, micro-batch by
micro-batch and `STEP` last, says which of two versions of a changing value a task means.
"""

from collections.abc import Sequence

from altprop.compiler.schedule.fix_batch import Sizes
from altprop.compiler.schedule.pieces import NetPieces
from altprop.ir.schedule import Piece, Task, ValueForm, in_microbatch


def make_forms(cut: NetPieces, sizes: Sizes) -> dict[str, ValueForm]:
    """Returns the form of every value."""
    return {name: sizes.form(name, fake) for name, fake in cut.fakes.items()}


def make_tasks(cut: NetPieces, microbatches: int, sizes: Sizes) -> list[Task]:
    """Returns all tasks that compute, in the reference order."""
    forms = make_forms(cut, sizes)
    once = [piece for piece in cut.pieces.values() if piece.kind == "STEP"]
    tasks: list[Task] = []
    for microbatch in range(microbatches):
        for (kind, region), piece in cut.pieces.items():
            if kind in ("F", "M", "E"):
                tasks.append(_task(piece, microbatch, forms))
            elif kind == "U" and (microbatch + 1) % cut.joint.get(region, 1) == 0:
                first = microbatch + 1 - cut.joint.get(region, 1)
                chosen = cut.pieces.get(("U+", region), piece) if first else piece
                tasks.append(_task(chosen, first, forms))
    return [*tasks, *(_task(piece, None, forms) for piece in once)]


def _task(piece: Piece, microbatch: int | None, forms: dict[str, ValueForm]) -> Task:
    def name(value: str) -> str:
        return in_microbatch(value, microbatch)

    made = [*piece.writes, *piece.changes]
    return Task(
        kind=piece.kind,
        region=piece.region,
        microbatch=microbatch,
        reads=tuple(name(value) for value in piece.reads if value is not None),
        writes=tuple(map(name, piece.writes)),
        changes=tuple(map(name, piece.changes)),
        shape=forms[made[0]].shape if made else (),
        bytes=sum(forms[value].bytes for value in made),
        flops=piece.flops,
        touched=piece.touched,
        operators=piece.operators,
    )


def dependencies(tasks: Sequence[Task]) -> list[set[int]]:
    """Returns, for each task, the places of those that it has to wait for.

    Args:
        tasks: in the reference order.
    """
    made: dict[str, int] = {}
    readers: dict[str, list[int]] = {}
    found: list[set[int]] = []
    for place, task in enumerate(tasks):
        waits: set[int] = set()
        for name in task.reads:
            if name in made:
                waits.add(made[name])  # RAW
        for name in (*task.writes, *task.changes):
            waits.update(readers.get(name, ()))  # WAR
            if name in made:
                waits.add(made[name])  # WAW
        for name in task.reads:
            readers.setdefault(name, []).append(place)
        for name in (*task.writes, *task.changes):
            made[name], readers[name] = place, []
        found.append(waits - {place})
    return found
