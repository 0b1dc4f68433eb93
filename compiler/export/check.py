"""Runs a file with onnxruntime and compares it with torch, before the file is kept.

The reference is the flat program as it came out of the compiler, with operators that nobody took apart: so the
comparison covers the decompositions too.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import fx

from altprop.compiler.export.contract import HELD
from altprop.compiler.export.decompose.recurrent_backward import OPAQUE
from altprop.compiler.export.emitter import is_symbolic, value_info
from altprop.compiler.export.retrace import RATE, RATES, SEED, STEP, draws, placeholders, region_of
from altprop.compiler.export.subject import Subject
from altprop.compiler.export.threefry import Random
from altprop.compiler.export.translate import Translated
from altprop.ir.errors import ExportError
from altprop.ir.program import Program, Slot

TOLERANCE = 1e-4
BATCHES = (3, 5)
# A value next to the kink of a ReLU may be rounded to its other side: another draw decides. A wrong operator is wrong
# in all of them.
DRAWS = 3
# Numbers that are compared at once: in double precision, and several times over.
BLOCK = 2**20


@dataclasses.dataclass(frozen=True)
class Check:
    """What was found: the largest difference, and the batches that were run."""

    difference: float
    batches: tuple[int, ...]


def verify(
    subject: Subject,
    original: Program,
    made: Translated,
    path: Path | bytes,
    batches: Sequence[int] = (),
) -> Check:
    """Compares a file with torch.

    Args:
        subject: what is exported.
        original: the flat program before it was made pure.
        made: the program in ONNX, and its names.
        path: the file, or what would be in it.
        batches: how many samples to draw; by default two numbers, or the one that the model fixes.

    Raises:
        ExportError: onnxruntime cannot load it, or a result differs; names the first region that does.
    """
    session = load(path)
    batches = batches or batches_of(subject)
    worst = 0.0
    for size in batches:
        for draw in range(DRAWS):
            given = random_inputs(subject, (original, made.program), size, draw)
            found, slot = _compare(subject, original, made, session, given)
            if found <= TOLERANCE:
                break
        else:
            raise ExportError(_sentence(subject, made, given, slot, found, size))
        worst = max(worst, found)
    return Check(worst, tuple(batches))


def batches_of(subject: Subject) -> Sequence[int]:
    """Returns two sizes of the batch, or the one that the model fixes."""
    batch = subject.derived.captured.batch
    # A translator that asked whether the batch equals a number has fixed it.
    assert not isinstance(batch, torch.SymInt) or is_symbolic(batch), "the batch was fixed on the way"
    return BATCHES if isinstance(batch, torch.SymInt) else (int(batch),)


def _compare(
    subject: Subject, original: Program, made: Translated, session: Any, given: Mapping[Slot, torch.Tensor]
) -> tuple[float, Slot]:
    """The difference of the first result that is too far off, else of the one that is farthest."""
    expected = reference(subject, original, given)
    gaps = [(difference(expected[slot], actual), slot) for slot, actual in run(session, made, given).items()]
    wrong = [gap for gap in gaps if not gap[0] <= TOLERANCE]
    return wrong[0] if wrong else max(gaps, key=lambda gap: gap[0])


def load(path: Path | bytes) -> Any:
    """Opens a file with onnxruntime on the CPU.

    Raises:
        ExportError: it refuses the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        source = path if isinstance(path, bytes) else str(path)
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no class of their own that is public
        first = " ".join(str(error).split())[:300]
        raise ExportError(
            f"onnxruntime does not take the file: {first}; a model in float32 (model.float()) has the most operators."
        ) from error


def run(session: Any, made: Translated, given: Mapping[Slot, torch.Tensor]) -> dict[Slot, np.ndarray]:
    """Runs a file on tensors; returns its results."""
    wanted = {item.name for item in session.get_inputs()}
    feeds = {made.inputs[s]: v.numpy() for s, v in given.items() if made.inputs.get(s) in wanted}
    return dict(zip(made.outputs, session.run(list(made.outputs.values()), feeds), strict=True))


def reference(subject: Subject, original: Program, given: Mapping[Slot, torch.Tensor]) -> dict[Slot, torch.Tensor]:
    """Runs the flat program in torch as it stands, on copies of the tensors, into which it writes."""
    values = {slot: value.clone() for slot, value in given.items()}
    step = int(given.get(STEP, 0))
    if subject.optimizer is not None and original.name == "step":
        optimizer = dataclasses.replace(subject.optimizer, lr=RATE, feedback_lr=RATE)
        numbers = optimizer.scalars(step + 1)
        values |= {Slot("scalar", n): torch.tensor(v, dtype=torch.float64) for n, v in numbers.items()}
    random = Random(torch.tensor(int(given.get(SEED, 0))), torch.tensor(step))
    batch = next((value.shape[0] for slot, value in given.items() if slot.kind == "input" and value.dim()), 1)
    for slot, node in zip(original.inputs, placeholders(original), strict=True):
        if slot.kind == "noise":
            like = node.meta["val"]
            values[slot] = random.noise([size_at(size, batch) for size in like.shape], like.dtype)
    runner = _EagerRunner(original, random)
    with torch.no_grad():
        returned = runner.run(*(values[slot] for slot in original.inputs), enable_io_processing=False)
    return {**values, STEP: torch.tensor(step + 1), **dict(zip(original.outputs, returned, strict=True))}


class _EagerRunner(fx.Interpreter):
    """Runs a flat program in torch; only its random numbers come from the seed."""

    def __init__(self, program: Program, random: Random) -> None:
        super().__init__(program.graph)
        self.draws = draws(random)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A tensor that the program holds; those of a net on a GPU are compared on the CPU too."""
        value = super().get_attr(target, args, kwargs)
        return value.cpu() if isinstance(value, torch.Tensor) else value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Runs one operator."""
        if target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            return args[0].reshape(args[1])  # what was drawn may lie in memory in another order
        if target in OPAQUE:  # what passes between them is an input of the update of a region, and drawn
            return OPAQUE[target](*args, **kwargs)
        if target not in self.draws:
            return super().call_function(target, args, kwargs)
        made = self.draws[target](*args, **kwargs)
        return args[0].copy_(made) if target is torch.ops.aten.bernoulli_.float else made


def difference(expected: torch.Tensor, actual: np.ndarray) -> float:
    """The largest difference, of numbers above 1 relative to the largest; infinite where the form differs."""
    one = expected.detach().cpu().numpy()
    if one.shape != actual.shape or one.dtype != actual.dtype:
        return float("inf")
    if not one.size:
        return 0.0
    gap = largest = 0.0
    firsts, seconds = one.reshape(-1), actual.reshape(-1)
    for start in range(0, firsts.size, BLOCK):
        first, second = (values[start : start + BLOCK].astype(np.float64) for values in (firsts, seconds))
        other = (first != second) & ~(np.isnan(first) & np.isnan(second))
        gaps = np.subtract(first, second, where=other, out=np.zeros_like(first))
        found = float(np.abs(gaps).max())  # of a NaN and a number, a NaN
        if not np.isfinite(found):
            return float("inf")
        gap = max(gap, found)
        largest = max(largest, float(np.abs(first, where=np.isfinite(first), out=np.zeros_like(first)).max()))
    return gap / max(1.0, largest)


def random_inputs(subject: Subject, programs: Sequence[Program], batch: int, seed: int = 0) -> dict[Slot, torch.Tensor]:
    """Draws what programs take, inputs and targets for a batch; parameters, buffers and feedback are the present ones.

    The optimizer's tensors are drawn as well, positive: next to zero, Adam would turn the noise of rounding into steps.
    """
    draw = _Draw(subject, torch.Generator().manual_seed(seed), batch)
    nodes = {s: n for program in programs for s, n in zip(program.inputs, placeholders(program), strict=True)}
    made = {slot for slot in programs[0].inputs if slot.kind in ("scalar", "noise")} - {SEED, *RATES}
    return {slot: draw.value(slot, node.meta["val"]) for slot, node in nodes.items() if slot not in made}


@dataclasses.dataclass
class _Draw:
    subject: Subject
    generator: torch.Generator
    batch: int

    def value(self, slot: Slot, like: torch.Tensor) -> torch.Tensor:
        if slot.kind == "state" or slot.kind == "scalar":
            return self._number(slot, like)
        if slot.kind in (*HELD, "constant"):
            return self.subject.lookup(slot).detach().cpu().contiguous()
        if slot.kind == "input":
            example = self.subject.example[self.subject.derived.captured.inputs.index(slot.name)]
            return self._like(example, like)
        if slot.kind == "target" and self.subject.target is not None:
            leaves = torch.utils._pytree.tree_leaves(self.subject.target)
            tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
            return self._like(tensors[int(slot.name)], like)
        if slot.kind == "target" and not like.is_floating_point():
            return torch.randint(self._classes(), self._shape(like), generator=self.generator).to(like.dtype)
        return self._free(like)

    def _shape(self, like: torch.Tensor) -> list[int]:
        return [size_at(size, self.batch) for size in like.shape]

    def _classes(self) -> int:
        captured, loss = self.subject.derived.captured, self.subject.options.loss
        outputs = [captured.value(name) for name in captured.outputs if name]
        scores = next(value for value in outputs if value.is_floating_point())
        return int(scores.shape[loss.feature_dim(scores.dim())])

    def _number(self, slot: Slot, like: torch.Tensor) -> torch.Tensor:
        if slot in (SEED, STEP):
            return torch.tensor(7 if slot == SEED else 3)
        if slot.kind == "scalar":
            return torch.tensor(RATE)
        return torch.rand(self._shape(like), generator=self.generator, dtype=like.dtype) + 0.1

    def _free(self, like: torch.Tensor) -> torch.Tensor:
        if like.is_floating_point():
            return torch.randn(self._shape(like), generator=self.generator, dtype=like.dtype)
        return torch.zeros(self._shape(like), dtype=like.dtype)

    def _like(self, example: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Integers are rows of the example, since only its values are known to be allowed; floats are normal."""
        if example.is_floating_point():
            return torch.randn(self._shape(like), generator=self.generator, dtype=like.dtype)
        value = example.detach().cpu()
        if list(value.shape) == self._shape(like):
            return value
        rows = torch.randint(value.shape[0], (self._shape(like)[0],), generator=self.generator)
        return value[rows].contiguous()


def size_at(size: Any, batch: int) -> int:
    """Evaluates a size for a batch."""
    if not isinstance(size, torch.SymInt):
        return int(size)
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, batch)))


def _sentence(
    subject: Subject, made: Translated, given: Mapping[Slot, torch.Tensor], slot: Slot, found: float, batch: int
) -> str:
    where = _first_different(made, given) or _region_of_slot(subject, slot)
    return (
        f'the file gives another "{made.outputs[slot]}" than torch, by {found:.1e} (allowed {TOLERANCE:.0e}) at a '
        f"batch of {batch}; the first to differ is {where}. Nothing was written. "
        "Train it in torch, or report the operator."
    )


def _first_different(made: Translated, given: Mapping[Slot, torch.Tensor]) -> str | None:
    """Compares every value inside; says which is the first to differ, in which region."""
    model = onnx.ModelProto()
    model.CopyFrom(made.model)
    known = {item.name for item in [*model.graph.input, *model.graph.output, *model.graph.initializer]}
    watched = {node: name for node, name in made.values.items() if node.op == "call_function" and name not in known}
    for name, node in {name: node for node, name in watched.items()}.items():
        model.graph.output.append(value_info(name, node.meta["val"]))
    # A model that is no file has no file beside it.
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in made.apart]:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        model.graph.initializer.remove(tensor)
    try:
        session = load(model.SerializeToString())
    except ExportError:
        return None
    wanted = {item.name for item in session.get_inputs()}
    feeds = {made.inputs[s]: v.numpy() for s, v in given.items() if made.inputs.get(s) in wanted}
    feeds |= {name: value.numpy() for name, value in made.apart.items() if name in wanted}
    names = list(dict.fromkeys(watched.values()))
    actual = dict(zip(names, session.run(names, feeds), strict=True))
    runner = fx.Interpreter(made.program.graph, garbage_collect_values=False)
    with torch.no_grad():
        runner.run(*(given[slot] for slot in made.program.inputs), enable_io_processing=False)
    for node, name in watched.items():
        if not difference(runner.env[node], actual[name]) <= TOLERANCE:
            return f"{region_of(node)}, operator {node.target}"
    return None


def _region_of_slot(subject: Subject, slot: Slot) -> str:
    """The region that a result belongs to."""
    name = slot.name.partition(":")[2] if slot.kind == "state" else slot.name
    locals_: Sequence[Any] = list(subject.derived.locals.values())
    found = [local.region.name for local in locals_ if name in local.theta]
    return f'region "{found[0]}"' if found else f'"{slot.name}"'
