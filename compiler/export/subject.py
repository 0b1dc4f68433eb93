"""What is exported: a compiled model with the tensors that it holds now."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx.node import map_aggregate

from altprop.compiler.pipeline import Options, fake_target
from altprop.ir.batch_facts import BatchFacts
from altprop.ir.decisions import noting
from altprop.ir.errors import ExportError
from altprop.ir.graph import ErrorGraph
from altprop.ir.optimizers import Optimizer
from altprop.ir.program import Program, Slot
from altprop.ir.torch_private import FakeTensor
from altprop.ir.values import ValueName
from altprop.passes.add_optimizer import AddOptimizer
from altprop.passes.cleanup import Cleanup
from altprop.passes.flattening.step_program import complete

Tree = Any
CPU = torch.device("cpu")
ALL_SIZES = "a file serves batches of all sizes"


@dataclasses.dataclass(frozen=True)
class Subject:
    """A compiled model and its tensors.

    Attributes:
        model: the caller's module.
        derived: the graph before it was flattened.
        options: what the compilation was asked for.
        example: the inputs that it was compiled for, flattened in the order of the program's inputs.
        example_args: the same, as positional and keyword arguments.
        lookup: the present tensor of a parameter, buffer, feedback matrix, constant or optimizer state.
        key: its key in `net.state_dict()`.
        state: `net.state_dict()`.
        target: an example target, or None for the loss's usual form.
        facts: what model and rules asked of the size of the batch.
    """

    model: torch.nn.Module
    derived: ErrorGraph
    options: Options
    example: tuple[Any, ...]
    example_args: tuple[tuple[Any, ...], Mapping[str, Any]]
    lookup: Callable[[Slot], torch.Tensor]
    key: Callable[[Slot], str]
    state: Mapping[str, torch.Tensor]
    target: Tree = None
    facts: BatchFacts = dataclasses.field(default_factory=BatchFacts)

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer inside the program."""
        return self.options.optimizer

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next((parameter.device for parameter in self.model.parameters()), CPU)

    @property
    def fake_mode(self) -> Any:
        """The mode of all fake values."""
        return self.derived.captured.fake_mode


def flat_program(subject: Subject, name: str, errors: bool = False, outputs: bool = True) -> Program:
    """Returns "backward" or "step" as it is before anything is fused, reused or tuned.

    Args:
        subject: what is exported.
        name: which.
        errors: whether it also returns the size of each region's error.
        outputs: whether it also returns what the model returns.

    Raises:
        ExportError: the form of the target is not known, or the program would not serve batches of all sizes.
    """
    captured, loss = subject.derived.captured, subject.options.loss
    target = fake_target(captured, loss, subject.target)
    if target is None:
        raise ExportError(f"the loss {loss.name} does not say what its target looks like: give an example, target=.")
    facts = BatchFacts([subject.facts])
    with noting(facts):
        builder = complete(subject.derived, loss, target)
    if captured.is_dynamic:
        facts.refuse(ALL_SIZES, ExportError)
    if outputs:
        builder.outputs()
    if errors:
        builder.errors()
    program = builder.finish("backward")
    if name == "backward":
        return program
    assert subject.optimizer is not None
    graph = subject.derived.replace(programs={"backward": program})
    return AddOptimizer(subject.optimizer, tensor_scalars=True)(graph).graph.programs["step"]


def cleaned(subject: Subject, program: Program) -> Program:
    """Returns a program without what has no effect; nothing is fused, and nothing overwrites what is still read."""
    if not subject.derived.at_least("derived"):
        return program
    graph = subject.derived.replace(programs={program.name: program})
    graph = Cleanup(fuse=False, reuse=False, kernels=False, join=False)(graph).graph
    return graph.programs[program.name]


def on_cpu(program: Program) -> Program:
    """Rewrites a program so that it runs on the CPU, wherever the net is: what is compared with onnxruntime there.

    The program is changed in place: its operators name no other device, and its fake values are on the CPU.
    """
    for node in program.graph.graph.nodes:
        node.args, node.kwargs = map_aggregate((node.args, node.kwargs), _device_to_cpu)
        node.meta["val"] = map_aggregate(node.meta.get("val"), _value_to_cpu)
    program.graph.recompile()
    return program


def _device_to_cpu(value: Any) -> Any:
    return CPU if isinstance(value, torch.device) else value


def _value_to_cpu(value: Any) -> Any:
    if not isinstance(value, FakeTensor) or value.device == CPU:
        return value
    with value.fake_mode:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=CPU)


def constants_of(
    subject: Subject, program: Program, fixed: Mapping[Slot, torch.Tensor] | None
) -> dict[Slot, torch.Tensor]:
    """What goes into the file: tensors that the forward makes out of nothing, and what the caller fixes."""
    made = {slot: subject.lookup(slot) for slot in program.inputs if slot.kind == "constant"}
    return {**made, **{slot: value for slot, value in (fixed or {}).items() if slot in program.inputs}}


def region_of_slot(subject: Subject, slot: Slot) -> str:
    """The region that a result belongs to."""
    name = ValueName.of(slot).name
    locals_: Sequence[Any] = list(subject.derived.locals.values())
    found = [local.region.name for local in locals_ if name in local.theta]
    return f'region "{found[0]}"' if found else f'"{slot.name}"'
