"""`LocalNet`: a compiled model that a user trains."""

import contextlib
import copy
import functools
from typing import Any

import torch
from torch import nn

from altprop.ir.compiler import Compiler
from altprop.ir.errors import CompileError
from altprop.ir.measurement import Measurement
from altprop.ir.modes import training
from altprop.ir.optimizers import Optimizer
from altprop.ir.program import LOSS, Slot
from altprop.ir.torch_private import hooks_of_tensor
from altprop.ir.training_recipe import Recipe
from altprop.ir.values import ValueName
from altprop.runtime.autograd_bridge import LocalFunction
from altprop.runtime.backends.base import Backend
from altprop.runtime.bad_batch import blame, blame_the_batch
from altprop.runtime.call import ONE_TUPLE, Call
from altprop.runtime.compilations import Compilations
from altprop.runtime.diverging import Diverging
from altprop.runtime.error_reductions import Reductions, trial_step
from altprop.runtime.error_reductions import check as check_reductions
from altprop.runtime.feedback import FeedbackStore
from altprop.runtime.lessons import Lessons
from altprop.runtime.memory import Held, count_held
from altprop.runtime.net_state import NetState
from altprop.runtime.noise import Noise
from altprop.runtime.optimizer_state import OptimizerState
from altprop.runtime.prepared_step import Ready
from altprop.runtime.replicas import Replicas
from altprop.runtime.signature import SignatureOfModel
from altprop.runtime.told_scale import Given, LossScale
from altprop.runtime.true_gradients import true_gradients, untouched
from altprop.runtime.variant import Variant


class LocalNet(NetState):
    """A model and the local-learning program that trains it.

    Made by `altprop.compile`. Parameters are shared with the caller's module, which is trained in place.

    Attributes:
        model: the caller's module.
        feedback: mapping from connection name, `"fc3->fc1"`, to feedback parameter.
        optimizer: the optimizer inside the program, or None; its `lr` may be changed between steps.
        backend: what runs its programs.
    """

    is_local_net = True
    # What transformers' Trainer asks: whether the model itself divides its loss. The loss of a net is its user's.
    accepts_loss_kwargs = False

    def __init__(
        self,
        model: nn.Module,
        compiler: Compiler,
        *,
        optimizer: Optimizer | None = None,
        backend: Backend,
        seed: int = 0,
        loss_scale: Given = None,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.feedback = FeedbackStore(seed)
        self.state = OptimizerState()
        self.noise = Noise(seed)
        self.optimizer = optimizer
        self.backend = backend
        self.recipe = recipe or Recipe()
        self._loss_scale = LossScale(loss_scale)
        self.lessons = Lessons(model)
        self.compilations = Compilations(self, compiler)
        self.replicas = Replicas()
        self.diverging = Diverging()
        self._ready: Ready | None = None

    def capture(self, *args: Any, **kwargs: Any) -> None:
        """Compiles for inputs like these, without running anything."""
        with training(self.model):
            self._variant(Call(args, kwargs))

    @SignatureOfModel
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model's forward.

        In training mode with grad enabled, `loss.backward()` on anything computed from the result fills `.grad` of
        every parameter by the local program. In evaluation mode this is the model itself, without gradients.
        """
        if not self.model.training:
            with torch.no_grad():
                return self.model(*args, **kwargs)
        if not torch.is_grad_enabled():
            return self.model(*args, **kwargs)
        call = Call(args, kwargs)
        call.refuse_input_gradients()
        variant = self._variant(call)
        turn = self._turn(variant)
        forward, update = variant.executor(f"forward{turn}"), variant.executor(f"update{turn}")
        moved = [slot for slot in update.outputs if slot.kind in ("gradient", "feedback_gradient")]
        tensors = [self._moved(slot) for slot in moved]
        blamed = blame_the_batch(variant, f"forward{turn}", call)
        with _uncast(call.device_type), blamed:
            scale = functools.partial(self._loss_scale.find, variant.compiled.observer.loss)
            given, remember = self._given(variant, call), self.lessons.remember
            values = LocalFunction.apply(forward, update, given, scale, remember, variant.tell_unheard, moved, *tensors)
        self.diverging.look(variant.remedy, values[0])
        return variant.structure(values)

    def backward(self, inputs: Any, target: Any, *more: Any) -> torch.Tensor:
        """Runs forward, errors and updates as one program without autograd, and adds to `.grad`.

        Args:
            inputs: the model's input; a tuple if it takes several, a dict if it takes them by keyword.
            target: the loss's target.
            more: nothing; several inputs are one tuple.

        Returns:
            The loss, a scalar.
        """
        if more:
            raise CompileError(ONE_TUPLE)
        self.replicas.warn_once("net.backward")
        call = Call.from_inputs(inputs, self.compilations.example)
        variant = self._variant(call, target)
        variant.need_target(target)
        name = f"backward{self._turn(variant)}"
        executor = variant.executor(name)
        given = self._given(variant, call, target)
        with _uncast(call.device_type), blame_the_batch(variant, name, call, target):
            made = executor.run(given)
        self.lessons.remember(executor.outputs, made)
        loss: torch.Tensor | None = None
        for slot, value in zip(executor.outputs, made, strict=True):
            if slot.kind == "loss":
                loss = value
            elif slot.kind != "lesson":
                _accumulate(self._moved(slot), value)
        assert loss is not None
        self.diverging.look(variant.remedy, loss)
        return loss

    def step(self, inputs: Any, target: Any, *more: Any) -> torch.Tensor:
        """Runs one training step as one program: forward, errors, updates and the optimizer.

        Args:
            inputs: the model's input; a tuple if it takes several, a dict if it takes them by keyword.
            target: the loss's target.
            more: nothing; several inputs are one tuple.

        Returns:
            The loss before the step, a scalar.

        Raises:
            CompileError: the net was compiled without `optimizer=`.
        """
        if self.optimizer is None:
            raise CompileError("net.step needs an optimizer inside the program: altprop.compile(..., optimizer=...).")
        if more:
            raise CompileError(ONE_TUPLE)
        ready = self._ready
        if ready is not None and ready.takes(inputs, target) and ready.holds(inputs.device.type):
            try:
                loss = ready.run(inputs, target, self.optimizer)
            except IndexError as error:
                raise blame(ready.variant, "step", Call.from_inputs(inputs), target, error) from error
            self.diverging.look(ready.variant.remedy, loss)
            return loss
        call = Call.from_inputs(inputs, self.compilations.example)
        kept = self.compilations.find(call, target, steps=True)
        variant = kept.variant
        variant.need_target(target)
        if Ready.can_be(kept, inputs, target):
            self._ready = Ready(kept, self.compilations.watch, self.state, inputs, target)
        name = f"step{variant.turn(self.feedback.seed, self.state.count + 1)}"
        executor = variant.executor(name)
        given = self._given(variant, call, target, draws=not self.backend.wants.whole_step)
        executor.refuse(given)
        given |= variant.numbers(self.optimizer, self.feedback.seed, self.state.advance())
        with _uncast(call.device_type), blame_the_batch(variant, name, call, target):
            made = executor.run(given)
        self.lessons.teach(executor.outputs, made)
        result: torch.Tensor = made[executor.outputs.index(LOSS)]
        self.diverging.look(variant.remedy, result)
        return result

    def learn(self) -> None:
        """Lets the learners of the model learn what they were told since; stands beside `optimizer.step()`.

        `net.backward` and `loss.backward()` only tell them; `net.step` teaches by itself. What several calls told a
        learner is one batch.
        """
        self.lessons.learn()

    def average_gradients(self, group: Any = None) -> None:
        """Averages `.grad` of all parameters, feedback too, over the processes of a group.

        For loops with `net.backward` in several processes, between it and the optimizer's step. `loss.backward()` needs
        it not: there DistributedDataParallel averages.

        Args:
            group: a process group of torch.distributed; None means all processes.

        Raises:
            CompileError: torch.distributed has not been started.
        """
        self.replicas.average([*self.model.parameters(), *self.feedback.values()], group)

    def memory(self, inputs: Any, target: Any) -> Held:
        """Counts the activations that a step on this batch holds at its peaks; nothing of the net is altered.

        Args:
            inputs: as for `step`.
            target: the loss's target.

        Returns:
            Bytes saved for updates, and bytes live in all; see `altprop.runtime.memory`.
        """
        call = Call.from_inputs(inputs, self.compilations.example)
        variant = self._variant(call, target)
        given = self._given(variant, call, target, counts=False)
        if self.optimizer is not None:
            given |= {Slot("scalar", name): number for name, number in variant.first_scalars(self.optimizer).items()}
        executor = variant.executor("backward" if self.optimizer is None else "step")
        with _uncast(call.device_type), torch.no_grad():
            return count_held(executor.program, executor.arguments(given))

    def measure(
        self,
        inputs: Any,
        target: Any,
        *,
        spectra: bool = False,
        reductions: bool = False,
        mode: str = "isolated",
        optimizer: torch.optim.Optimizer | None = None,
    ) -> Measurement:
        """Compares the updates with the loss's true gradients on a batch; nothing of the net is altered.

        This is the one place that calls autograd.

        Args:
            inputs: as for `step`.
            target: the loss's target.
            spectra: whether to tell the sizes of activities and the ranks of errors and updates too.
            reductions: whether to make a step, and undo it, to see by how much each region's part of it lowers the
                loss, and the region's own error; see `altprop.runtime.error_reductions`.
            mode: of the rows' `ger`: each region's part alone, "isolated", or one after the other, "cumulative".
            optimizer: the one that makes the step, where the net has none inside; it is left as it is.

        Returns:
            Angles, norms and discrepancies, by region and by connection.

        Raises:
            CompileError: reductions are wanted, and there is no optimizer; or the mode is unknown.
        """
        if reductions:
            check_reductions(self, mode, optimizer)
        call = Call.from_inputs(inputs, self.compilations.example)
        variant = self._variant(call, target)
        with untouched(self.model):
            given = self._given(variant, call, target, counts=False)
            values = {slot: value for slot, value in given.items() if slot.kind == "noise"} | variant.observe(given)
        observer = variant.compiled.observer
        with untouched(self.model):
            gradients = true_gradients(self.model, call.args, call.kwargs, observer.loss, target)
        parameters, feedback = dict(self.model.named_parameters()), dict(self.feedback.items())
        with untouched(self.model), torch.no_grad():
            measurement = observer.measure(values, gradients, parameters, feedback, spectra=spectra)
        if not reductions:
            return measurement

        def probe() -> dict[Slot, torch.Tensor]:
            with untouched(self.model):
                return variant.probe(given)

        updates = variant.compiled.graph.updates
        errors = {name: values[ValueName("observed", name, "error").slot] for name in updates}
        moved = {name: updates[name].gradients for name in updates}
        after = trial_step(self, inputs, target, optimizer)
        return Reductions(self.model, moved, after, probe).added(measurement, errors, mode)

    def _given(
        self, variant: Variant, call: Call, target: Any = None, *, counts: bool = True, draws: bool = True
    ) -> dict[Slot, Any]:
        """Values of the slots that change from call to call; unless it counts, the next call draws the same noise."""
        given = variant.given(call, target)
        if draws and variant.noise:
            given |= self.noise.draw(variant.noise, call.batch, call.first.device)
            self.noise.count -= not counts
        return given

    def _turn(self, variant: Variant) -> str:
        """Which programs the next pass runs; counts it, unless steps are counted by the optimizer inside."""
        number = self.state.advance() if self.optimizer is None else self.state.count + 1
        return variant.turn(self.feedback.seed, number)

    def _moved(self, slot: Slot) -> nn.Parameter:
        if slot.kind == "feedback_gradient":
            return self.feedback[slot.name]
        return self.model.get_parameter(slot.name)

    def _variant(self, call: Call, target: Any = None) -> Variant:
        """Returns the compiled programs for inputs of this form in the model's present mode."""
        return self.compilations.find(call, target).variant

    def __deepcopy__(self, memo: dict[int, Any]) -> "LocalNet":
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        shared = ("compilations", "_ready")
        made.__dict__ = {k: copy.deepcopy(v, memo) for k, v in self.__dict__.items() if k not in shared}
        made.compilations, made._ready = self.compilations.bound_to(made), None
        return made

    def __getstate__(self) -> dict[str, Any]:
        first = self.compilations.first
        examples = first.variant.example if first is not None else None
        return self.__dict__ | {"compilations": self.compilations.compiler, "_ready": None, "_examples": examples}

    def __setstate__(self, state: dict[str, Any]) -> None:
        example = state.pop("_examples")
        super().__setstate__(state)
        self.compilations = Compilations(self, state["compilations"])
        if example is not None:
            self.capture(*example.args, **example.kwargs)


def _uncast(device_type: str) -> contextlib.AbstractContextManager[Any]:
    """Ends autocast where there is one: its casts are in the programs."""
    if not torch.is_autocast_enabled(device_type):
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)


def _accumulate(parameter: nn.Parameter, gradient: torch.Tensor) -> None:
    for hook in (hooks_of_tensor(parameter) or {}).values():
        changed = hook(gradient)
        gradient = gradient if changed is None else changed
    if parameter.grad is None:
        parameter.grad = gradient
    else:
        parameter.grad.add_(gradient)
