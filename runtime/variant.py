"""Programs for one form of inputs, and the calls that they fit."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from altprop.ir.alternate import SUFFIX, Turns
from altprop.ir.compiler import Compilation
from altprop.ir.errors import CompileError
from altprop.ir.least_batch import LONELY, least_batch
from altprop.ir.optimizers import Optimizer
from altprop.ir.program import Program, Slot
from altprop.ir.session import SessionProgram, numbers_outside
from altprop.ir.sizes import line_in_batch
from altprop.ir.torch_private import pytree
from altprop.runtime.backends.base import Backend
from altprop.runtime.backends.fast_call import straight
from altprop.runtime.bindings import Bindings
from altprop.runtime.call import Call
from altprop.runtime.diverging import remedy_in
from altprop.runtime.executor import Executor
from altprop.runtime.feedback import FeedbackStore
from altprop.runtime.noise import noise_forms
from altprop.runtime.optimizer_state import OptimizerState

_WITHOUT_TARGET = (
    "the rule reads the loss's target, which loss.backward() does not hand over, and which cannot be told from the "
    "gradient of this loss: use net.backward(inputs, target) or net.step(inputs, target)."
)
MakeSession = Callable[["Variant", Any], SessionProgram]
"""Makes the step of a variant for an engine outside torch, given an example of the target."""

_MISSING = {"forward": _WITHOUT_TARGET, "update": _WITHOUT_TARGET}


class Variant:
    """Compiled programs bound to the tensors of one net, with the call that they were made for."""

    def __init__(
        self,
        compiled: Compilation,
        example: Call,
        model: nn.Module,
        feedback: FeedbackStore,
        state: OptimizerState,
        backend: Backend,
        session: MakeSession,
        target: Any = None,
    ) -> None:
        self.compiled = compiled
        self._target_structure = target
        self.backend = backend
        self._make_session = session
        self.example = example
        graph = compiled.graph
        self._captured = graph.captured
        self._programs = graph.programs
        self._turns = graph.alternation
        self._counted: Turns | None = None
        self._bindings = Bindings(model, feedback, state, graph.captured.constants, self._session)
        self._executors: dict[str, Executor] = {}
        self._unheard: set[frozenset[str]] = set()
        self._inputs = [Slot("input", name) for name in graph.captured.inputs]
        self.noise = noise_forms(graph)
        self.remedy = remedy_in(graph)
        self.has_learners = any(region.learner for region in graph.regions)
        self._dense = [_is_dense(graph.captured.value(name)) for name in graph.captured.inputs]
        targets = self._find_targets()
        self._target_rows = [line_in_batch(value.shape[0]) if value.dim() else (0, 0) for value in targets or ()]
        self._target_key = None if targets is None else self._key_of(targets)
        self.least_batch = least_batch(graph.captured.graph)

    def tell_unheard(self, silent: frozenset[str]) -> None:
        """Warns once of a region that learns nothing from a backward that brings no gradient to some outputs."""
        if silent in self._unheard:
            return
        self._unheard.add(silent)
        said = self.compiled.observer.unheard(silent)
        if said:
            warnings.warn(f"this backward brings no gradient to some of the model's outputs: {said}", stacklevel=2)

    def bind(
        self, model: nn.Module, feedback: FeedbackStore, state: OptimizerState, session: "MakeSession"
    ) -> "Variant":
        """Returns the same programs, bound to another net's tensors."""
        return Variant(
            self.compiled, self.example, model, feedback, state, self.backend, session, self._target_structure
        )

    def tensor(self, slot: Slot) -> torch.Tensor:
        """Returns the present tensor behind a slot of the model, its feedback, the optimizer or the constants."""
        getter = self._bindings.getter(slot)
        assert getter is not None, slot
        found: torch.Tensor = getter()
        return found

    def example_inputs(self) -> list[Any]:
        """Returns the flattened inputs that the programs were compiled for, in the order of their slots."""
        return self._ordered(self.example)

    @property
    def is_static(self) -> bool:
        """Whether the model fixes the size of its batch."""
        return isinstance(self._captured.batch, int)

    @property
    def is_simple(self) -> bool:
        """Whether a step asks for nothing but one input, the target and the optimizer's numbers."""
        wants = self.backend.wants
        plain = not (wants.tensor_scalars or wants.whole_step or self.has_learners or self.noise or self._turns)
        return plain and len(self._inputs) == 1 and not (self.is_static or self.compiled.facts)

    @property
    def takes_dense(self) -> bool:
        """Whether the first input must have no gaps."""
        return self._dense[0]

    def _find_targets(self) -> list[torch.Tensor] | None:
        """The tensors of the target as the programs are made for it; None where its form is not known."""
        if "backward" not in self._programs:
            return None
        return [leaf for leaf in pytree.tree_leaves(self.compiled.target) if isinstance(leaf, torch.Tensor)]

    def _key_of(self, targets: list[torch.Tensor]) -> Any:
        return (self._target_structure, *((v.dtype, tuple(int(s) for s in v.shape[1:])) for v in targets))

    def fits(self, call: Call, target: Any = None) -> bool:
        """Whether the programs run this call, with this target."""
        if self.is_static and call.batch != self._captured.batch:
            return False
        if not self.compiled.facts.hold(call.batch):
            return False
        return target is None or Call.target_key(target) == self._target_key

    def need_target(self, target: Any) -> None:
        """Refuses a step without a target, unless the loss takes none.

        Raises:
            CompileError: says so.
        """
        if target is None and self._target_key is not None and len(self._target_key) > 1:
            raise CompileError("the loss takes a target, and None was given: net.step(inputs, target).")

    def turn(self, seed: int, step: int) -> str:
        """Returns what stands behind the names of the programs that a step runs: "", or the alternate's suffix."""
        turns = self._turns
        return SUFFIX if turns is not None and turns.is_alternate(seed, step) else ""

    def numbers(self, optimizer: Optimizer, seed: int, step: int) -> dict[Slot, Any]:
        """Returns the numbers of a step, counted from 1, as the backend wants them."""
        wants = self.backend.wants
        if wants.whole_step:
            return numbers_outside(optimizer, seed, step - 1)
        named = self._scalars(optimizer, seed, step).items()
        if wants.tensor_scalars:
            return {Slot("scalar", name): torch.tensor(number, dtype=torch.float64) for name, number in named}
        return {Slot("scalar", name): number for name, number in named}

    def first_scalars(self, optimizer: Optimizer) -> dict[str, float]:
        """Returns the optimizer's numbers of the first step, also those of programs that take turns."""
        mixed = {} if self._turns is None else optimizer.mixture(1.0, own=1, other=1)
        return optimizer.scalars(1) | mixed

    def _scalars(self, optimizer: Optimizer, seed: int, step: int) -> dict[str, float]:
        """The optimizer's numbers; each of two programs that take turns counts its own steps."""
        turns = self._turns
        if turns is None:
            return optimizer.scalars(step)
        if self._counted is None or self._counted.seed != seed:
            self._counted = Turns(turns, seed)
        own, other = self._counted.upto(step)
        if turns.is_alternate(seed, step):
            return optimizer.scalars(other)
        return optimizer.scalars(own) | optimizer.mixture(turns.share, own, other)

    def executor(self, name: str) -> Executor:
        """Returns one of the programs, ready to run.

        Raises:
            CompileError: the program could not be made for this rule and loss.
        """
        if name not in self._programs:
            raise CompileError(_MISSING[name.removesuffix(SUFFIX)])
        if name not in self._executors:
            program = self._programs[name]
            if program.is_step:
                self.backend.check(self._bindings.device, self.compiled.observer.loss)
            self._executors[name] = self.backend.prepare(program, self._bindings)
        return self._executors[name]

    def _session(self, given: Mapping[Slot, Any]) -> SessionProgram:
        """Has the step made for an engine outside torch, by the example of a batch."""
        tensors = (value for slot, value in given.items() if slot.kind == "target")
        target = pytree.tree_map_only(torch.Tensor, lambda _: next(tensors), self.compiled.target)
        return self._make_session(self, target)

    def observe(self, given: Mapping[Slot, Any]) -> dict[Slot, torch.Tensor]:
        """Runs the program that a measurement reads on what `given` says; returns its results by slot."""
        return self._results("observe", self.compiled.observer.program, given)

    def probe(self, given: Mapping[Slot, Any]) -> dict[Slot, torch.Tensor]:
        """Runs forward and loss alone; returns the loss and the activities by slot."""
        return self._results("probe", self.compiled.observer.probe, given)

    def _results(self, name: str, make: Callable[[], Program], given: Mapping[Slot, Any]) -> dict[Slot, torch.Tensor]:
        if name not in self._executors:
            program = make()
            self._executors[name] = Executor(program, self._bindings, straight(program.graph))
        executor = self._executors[name]
        return dict(zip(executor.outputs, executor.run(given), strict=True))

    def given(self, call: Call, target: Any = None) -> dict[Slot, Any]:
        """Pairs the slots of inputs and targets with values.

        Raises:
            ValueError: input and target have batches of different sizes, or one that the model cannot train on.
        """
        if call.batch < self.least_batch:
            raise ValueError(f"the batch has {_samples(call.batch)}{'; ' + LONELY if call.batch else '.'}")
        given: dict[Slot, Any] = {
            slot: leaf.contiguous() if dense and isinstance(leaf, torch.Tensor) else leaf
            for slot, leaf, dense in zip(self._inputs, self._ordered(call), self._dense, strict=True)
        }
        leaves = [target] if isinstance(target, torch.Tensor) else pytree.tree_leaves(target)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        for index, leaf in enumerate(tensors):
            line = self._target_rows[index] if index < len(self._target_rows) else (1, 0)
            if leaf.dim() and line is not None and leaf.shape[0] != line[0] * call.batch + line[1]:
                raise ValueError(f"the target has a batch of {leaf.shape[0]}, the input one of {call.batch}.")
            given[Slot("target", str(index))] = leaf.contiguous()
        return given

    def _ordered(self, call: Call) -> list[Any]:
        """The flattened arguments, keywords in the order of the capture."""
        if not call.kwargs:
            return call.leaves
        names = list(self.example.kwargs)
        return pytree.tree_leaves((call.args, {name: call.kwargs[name] for name in names}))

    def structure(self, values: Any) -> Any:
        """Puts flat outputs into the form in which the model returns them."""
        captured = self._captured
        rest = iter(values)
        leaves = [
            next(rest) if name else captured.constant_outputs[index] for index, name in enumerate(captured.outputs)
        ]
        return pytree.tree_unflatten(leaves, captured.out_spec)


def _samples(count: int) -> str:
    return "one sample" if count == 1 else f"{count or 'no'} samples"


def _is_dense(value: Any) -> bool:
    """Whether the programs were traced for an input without gaps: then a slice of a larger tensor is copied first."""
    return isinstance(value, torch.Tensor) and value.is_contiguous()
