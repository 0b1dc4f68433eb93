"""Makes the compilations of a net when they are needed, and draws what they need: feedback and optimizer state."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from altprop.ir.alone import alone
from altprop.ir.alternate import OTHER
from altprop.ir.compiler import Compilation, Compiler
from altprop.ir.errors import CompileError, PlanError
from altprop.ir.graph import ErrorGraph
from altprop.ir.layouts import FORMATS, feedback_channels_last
from altprop.ir.members import Members
from altprop.ir.modes import training
from altprop.ir.optimizers import Optimizer
from altprop.ir.plain_tensors import refuse_tensors
from altprop.ir.plan import WiringPlan
from altprop.ir.program import Slot
from altprop.ir.session import SessionProgram
from altprop.ir.structures import structure_of
from altprop.ir.torch_private import pytree
from altprop.ir.values import ValueName
from altprop.runtime.backends.base import Backend
from altprop.runtime.call import Call
from altprop.runtime.feedback import FeedbackStore
from altprop.runtime.guards import Guards
from altprop.runtime.hooks import ToldHooks
from altprop.runtime.jacobian import mean_jacobians
from altprop.runtime.noise import Noise
from altprop.runtime.optimizer_state import OptimizerState
from altprop.runtime.variant import Variant
from altprop.runtime.variants import Kept, Variants
from altprop.runtime.watch_model import Mode, Watch


class CompiledNet(Protocol):
    """What of a net a compilation reads and fills."""

    model: nn.Module
    feedback: FeedbackStore
    state: OptimizerState
    noise: Noise
    optimizer: Optimizer | None
    backend: Backend


class Compilations:
    """All compilations of one net.

    Attributes:
        watch: knows the model's present mode.
        variants: the compilations.
        first: the one that `net.graph` and its like speak of, or None.
    """

    def __init__(self, net: CompiledNet, compiler: Compiler) -> None:
        self._net = net
        self.compiler = compiler
        self.watch = Watch(net.model)
        self.variants = Variants()
        self.first: Kept | None = None
        self._told, self._told_of_steps = ToldHooks(), -1

    @property
    def example(self) -> Call | None:
        """The call that the net was first compiled for, or None."""
        return None if self.first is None else self.first.variant.example

    def bound_to(self, net: CompiledNet) -> "Compilations":
        """Returns the same compilations for a copy of the net."""
        made = Compilations(net, self.compiler)
        bound = {id(kept): made._bind(kept, Guards.bind) for kept in self.variants}
        made.variants = self.variants.bound(lambda kept: bound[id(kept)])
        if self.first is not None:
            made.first = bound.get(id(self.first)) or made._bind(self.first, Guards.bind)
        return made

    def find(self, call: Call, target: Any = None, *, steps: bool = False) -> Kept:
        """Returns the programs for inputs of this form in the model's present mode; compiles where there are none.

        Hooks are looked for where the watch found something new, and at the first step.

        Args:
            call: the inputs.
            target: the loss's target, or None.
            steps: whether a step follows, which skips the hooks of parameters too: they only see gradients that
                autograd or `net.backward` brings.
        """
        refuse_tensors("input", call.leaves)
        if target is not None:
            refuse_tensors("target", [target] if isinstance(target, torch.Tensor) else pytree.tree_leaves(target))
        is_new = self.watch.refresh()
        if is_new or (steps and self._told_of_steps != self.watch.looks):
            self._told.tell(self._net.model, of_tensors=steps)
        if steps:
            self._told_of_steps = self.watch.looks
        mode = self.watch.present_mode(call.device_type)
        return self._found(call, mode, target) or self._make(call, mode, target)

    def _found(self, call: Call, mode: Mode, target: Any) -> Kept | None:
        return self.variants.find(call, mode, target, self.watch, self._rebind)

    def present(self) -> Variant:
        """Returns the variant that a step like the first would run now; compiles it if the model is another by now.

        Raises:
            CompileError: nothing is compiled yet.
        """
        first = self.first
        if first is None:
            raise CompileError(
                "nothing is compiled yet: call the net once, or pass example_inputs= to altprop.compile."
            )
        call = first.variant.example
        mode = self.watch.mode(call.device_type)
        if (mode.form, mode.grads) != (first.mode.form, first.mode.grads):
            self.first = self._like_first(call)
        elif first.turn != self.watch.turns:
            self.first = self._rebind(first)
        assert self.first is not None
        if not self.first.holds(self.watch):
            self.first = self._like_first(call)
        return self.first.variant

    def _like_first(self, call: Call) -> Kept:
        with training(self._net.model):
            return self.find(call)

    @alone()
    def _make(self, call: Call, mode: Mode, target: Any) -> Kept:
        """Compiles for a form of inputs, unless another thread did so while this one waited."""
        kept = self._found(call, mode, target)
        if kept is not None:
            return kept
        if call.batch == 1:
            for known in self.variants:
                known.variant.compiled.facts.refuse("one sample runs what was made for two or more", CompileError)
        kept = self._compile(call, mode, None if self.first is None else target)
        if not kept.variant.fits(call, target):
            kept = self._compile(call, mode, target)
        if not kept.variant.fits(call):
            raise CompileError(f"altprop has a fault: what was made for a batch of {call.batch} is for another one.")
        return kept

    def _compile(self, call: Call, mode: Mode, target: Any) -> Kept:
        net = self._net
        first = self.first
        # Of another mode or another way through forward the regions are others: the rules make their plan anew.
        same = first is not None and (first.mode.form, first.mode.grads) == (mode.form, mode.grads)
        plan = first.variant.compiled.graph.plan if first is not None and same and first.holds(self.watch) else None
        self._told.tell(net.model)
        compiled = self._compile_by(plan, call, target)
        self._forget_replaced()
        graph = compiled.graph
        with compiled.timings.stage("draw_feedback"):
            stored = net.backend.wants.stored_channels_last
            images = stored and any(len(one.shape) in FORMATS for one in graph.feedback.values())
            step = graph.programs.get("step") if images else None
            drawn = net.feedback.add(
                graph.feedback,
                net.model,
                feedback_channels_last(step) if step is not None else (),
                lambda asked: mean_jacobians(graph.captured, net.model, call.leaves, asked, net.feedback.seed),
            )
        if drawn:  # programs of the model as it was want feedback of another size
            self.variants.drop(lambda kept: kept.mode.form == mode.form)
        variant = Variant(
            compiled, call, net.model, net.feedback, net.state, net.backend, self._session, structure_of(target)
        )
        if variant.noise:
            net.noise.use()
        if net.optimizer is not None:
            self._add_state(graph, net.optimizer)
        mode = self.watch.mode(call.device_type)
        guards = Guards(compiled.reads, net.model)
        watch = self.watch
        kept = Kept(variant, call.form(), call.values(), mode, guards, watch.turns, watch.looks, watch.hooks)
        self.variants.keep(kept, call, target)
        if first is None:
            self.first = kept
        return kept

    def _session(self, variant: Variant, target: Any) -> SessionProgram:
        return self.compiler.session(self._net, variant, target)

    def _add_state(self, graph: ErrorGraph, optimizer: Optimizer) -> None:
        net = self._net
        named = {**dict(net.model.named_parameters()), **dict(net.feedback.items())}
        updates = graph.updates.values()
        moved = dict.fromkeys(n for update in updates for n in (*update.gradients, *update.feedback_gradients))
        members = Members.of(graph)
        slots: list[Slot] = []
        for name in (name for name in moved if name not in members.assigned):
            own = optimizer.of(name in members.matrices)
            kinds = list(own.slots)
            if graph.alternation is not None:
                kinds += [f"{OTHER}{kind}" for kind in own.kept(graph.alternation.share != 1)]
            slots += [ValueName("state", name, kind).slot for kind in kinds]
        net.state.add(slots, named)

    def _compile_by(self, plan: WiringPlan | None, call: Call, target: Any) -> Compilation:
        first = self.first.variant if self.first is not None else None
        try:
            return self.compiler(self._net.model, call.args, call.kwargs, target, plan)
        except PlanError as error:
            if first is None or not first.is_static or call.batch == first.example.batch:
                raise
            raise CompileError(
                f"the model was captured on a batch of {first.example.batch}, and runs other layers on one of "
                f"{call.batch}, as where forward loops over the samples: give batches of one size, or compute on the "
                "whole batch at once."
            ) from error

    def _rebind(self, kept: Kept) -> Kept:
        """Binds a variant to the modules that stand in the model now."""
        self._forget_replaced()
        return self._bind(kept, Guards.again)

    def _forget_replaced(self) -> None:
        self._net.state.reset(self.watch.replaced())

    def _bind(self, kept: Kept, guards: Callable[[Guards, nn.Module], Guards]) -> Kept:
        net = self._net
        variant = kept.variant.bind(net.model, net.feedback, net.state, self._session)
        watch, bound = self.watch, guards(kept.guards, net.model)
        return dataclasses.replace(kept, variant=variant, guards=bound, turn=watch.turns, looks=watch.looks)
