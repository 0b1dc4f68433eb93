"""`LocalNet`: a compiled model that a user trains."""

import contextlib
import copy
import dataclasses
import functools
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from altprop.ir.compiler import Compiler
from altprop.ir.errors import CompileError, ExportError
from altprop.ir.explain import Explanation, explain
from altprop.ir.graph import ErrorGraph
from altprop.ir.history import History
from altprop.ir.measurement import Measurement
from altprop.ir.members import Members
from altprop.ir.modes import training
from altprop.ir.optimizers import Optimizer
from altprop.ir.plan import WiringPlan
from altprop.ir.program import LOSS, Slot
from altprop.ir.timings import Timings
from altprop.ir.training_recipe import Recipe
from altprop.ir.values import STATE_DICT, ValueName
from altprop.runtime.autograd_bridge import LocalFunction
from altprop.runtime.backends.base import Backend
from altprop.runtime.bad_batch import blame, blame_the_batch
from altprop.runtime.bindings import Bindings
from altprop.runtime.compilations import Compilations
from altprop.runtime.error_reductions import Reductions, trial_step
from altprop.runtime.error_reductions import check as check_reductions
from altprop.runtime.feedback import FeedbackStore
from altprop.runtime.lessons import Lessons
from altprop.runtime.memory import Held, count_held
from altprop.runtime.noise import Noise, noise_forms
from altprop.runtime.optimizer_state import OptimizerState
from altprop.runtime.parallel.net_tensors import NetTensors
from altprop.runtime.parameter_groups import groups_of
from altprop.runtime.prepared_step import Ready
from altprop.runtime.replicas import Replicas
from altprop.runtime.signature import SignatureOfModel
from altprop.runtime.tied import leave_out, other_names, put_back
from altprop.runtime.told_scale import Given, LossScale
from altprop.runtime.true_gradients import true_gradients, untouched
from altprop.runtime.variant import ONE_TUPLE, Call, Variant

# Kinds of what a checkpoint holds that a net has only once it is compiled.
_MADE_BY_CAPTURE = ("feedback", "state", "noise")


class LocalNet(nn.Module):
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
        self._ready: Ready | None = None

    def capture(self, *args: Any, **kwargs: Any) -> None:
        """Compiles for inputs like these, without running anything."""
        with training(self.model):
            self._variant(Call.of(args, kwargs))

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
        call = Call.of(args, kwargs)
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
            values = LocalFunction.apply(forward, update, given, scale, remember, moved, *tensors)
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
                return ready.run(inputs, target, self.optimizer)
            except IndexError as error:
                raise blame(ready.variant, "step", Call.from_inputs(inputs), target, error) from error
        call = Call.from_inputs(inputs, self.compilations.example)
        self.compilations.say_what_steps_skip()
        kept = self.compilations.find(call, target)
        variant = kept.variant
        variant.need_target(target)
        if Ready.can_be(variant, inputs, target):
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
            numbers = self.optimizer.scalars(1) | self.optimizer.mixture(1.0, own=1, other=1)
            given |= {Slot("scalar", name): number for name, number in numbers.items()}
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
            measurement: Measurement = observer.measure(values, gradients, parameters, feedback, spectra=spectra)
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

    def _compiled(self) -> Any:
        return self.compilations.present().compiled

    @property
    def plan(self) -> WiringPlan:
        """The wiring plan."""
        plan: WiringPlan = self._compiled().graph.plan
        return plan

    @property
    def graph(self) -> ErrorGraph:
        """The error-pathway graph after all passes."""
        graph: ErrorGraph = self._compiled().graph
        return graph

    @property
    def history(self) -> History:
        """The graph after each pass, by the pass's name; prints as a table of the passes."""
        compiled = self._compiled()
        return History(compiled.history, compiled.timings)

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds that each stage of the compilation took."""
        return self.timings.stages

    @property
    def timings(self) -> Timings:
        """Where the time of the compilation went: by stage, and inside stages by region."""
        timings: Timings = self._compiled().timings
        return timings

    def schedule(self, devices: Any = None, **options: Any) -> Any:
        """Cuts the step into one program a device.

        Args:
            devices: how many devices like the model's own; a list, such as `["cpu", "cuda:0"]` or
                `["cuda:0", "cuda:0"]`, two streams of one GPU; a `DeviceMesh` with the dimensions
                `("replica", "region")` or `("region",)`; None means what `compile` was told.
            options: `microbatches=`, a number that divides the batch; `join=`, a number that divides them: so many may
                share an update where that pays, which then holds what it reads of each; `batch=`, samples of a step,
                else those of the example; `target=`, an example of the loss's target where it has no usual form;
                `placement=`, the device of each region, by name, where stages of equal work are not wanted;
                `machine=`, an `altprop.Machine`, or the file of one; `order=`, "list", or a known order of pipelines
                to compare with: "naive", "gpipe", "1f1b", "zero-bubble".

        Returns:
            An `altprop.Schedule`.

        Raises:
            ScheduleError: the step cannot be cut so.
        """
        self._compiled()
        return self.compilations.compiler.schedule(self, devices, **options)

    def tensors(self) -> NetTensors:
        """Returns what runtimes of schedules need: the net's tensors and its optimizer.

        Raises:
            ScheduleError: the net was compiled without `optimizer=`.
        """
        graph = self.graph
        bindings = Bindings(self.model, self.feedback, self.state, graph.captured.constants)
        keywords = tuple(self._compiled().example.kwargs)
        forms = noise_forms(graph)
        made = NetTensors(bindings, graph.captured.inputs, keywords, self.optimizer, self.state, self.noise, forms)
        made.structure = self._compiled().example.structure
        made.settings = {"plan": str(graph.plan), "seed of feedback": str(self.feedback.seed)}
        return made

    @property
    def example_batch(self) -> int:
        """Samples of the inputs that the net was captured with."""
        batch: int = self._compiled().example.batch
        return batch

    def explain(self) -> Explanation:
        """Returns a table, one row a parameter: which rule really moves it, and where its signal comes from."""
        trainable = {name: p.requires_grad for name, p in self.model.named_parameters()}
        return explain(self.graph, trainable)

    def export(self, path: str | Path, **options: Any) -> Path:
        """Writes a program that runs, the graph, or the plan; the suffix chooses.

        Args:
            path: `.onnx`, `.pte` or `.pt2`: a program; `.json`: the plan; `.graphml`, `.dot`, `.svg`, `.png`, `.pdf`,
                `.html`: the graph.
            options: for programs: `what` ("step", "backward", "forward", "update"), `initial` (".npz",
                ".safetensors" or ""), `errors`, `target`, an example of the loss's target; of `.onnx` also
                `external_data`, of `.pte` also `batch` and `delegate` ("xnnpack").

        Returns:
            The path; for `what="update"`, the folder.

        Raises:
            ExportError: says what cannot be exported, where, and the way out.
        """
        path = Path(path)
        if path.suffix in (".onnx", ".pte", ".pt2"):
            self._compiled()
            made: Path = self.compilations.compiler.export(self, path, **options)
            return made
        if options:
            raise ExportError(f"{path.name}: {', '.join(options)} fit .onnx, .pte and .pt2 alone.")
        if path.suffix == ".json":
            self.plan.save(path)
            return path
        return self.graph.draw(path, history=self.history) if path.suffix == ".html" else self.graph.draw(path)

    def save_pretrained(self, folder: str | Path, **options: Any) -> Path:
        """Writes the net as a folder that `altprop.from_pretrained` reads; needs the extra `hub`.

        Args:
            folder: where; `model.safetensors` in it holds the model's own weights, for torch alone.
            options: for `huggingface_hub.ModelHubMixin.save_pretrained`.

        Returns:
            The folder.
        """
        self._compiled()
        return self.compilations.compiler.save_pretrained(self, folder, **options)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Uploads the net to the Hugging Face Hub, with a model card that holds the table of `explain()`.

        Args:
            name: the repository, `"me/my-net"`.
            options: for `huggingface_hub.ModelHubMixin.push_to_hub`, such as `private=True`.

        Returns:
            The address of the commit.
        """
        self._compiled()
        return self.compilations.compiler.push_to_hub(self, name, **options)

    def feedback_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the feedback parameters, learned and fixed."""
        yield from self.feedback.values()

    def param_groups(
        self,
        lr: float | None = None,
        feedback_lr: float | None = None,
        feedback_weight_decay: float | None = None,
        output_rate: float | None = None,
        matrices: bool | None = None,
    ) -> list[dict[str, Any]]:
        """Returns parameter groups for `torch.optim`: the model's parameters, and the learned feedback.

        Without `lr` what is not given is as in the rule's recipe, `net.recipe`.

        Args:
            lr: learning rate of the model's parameters.
            feedback_lr: learning rate of learned feedback; None means `lr`.
            feedback_weight_decay: weight decay of learned feedback; None means 0.
            output_rate: times `lr`, the rate of the parameters of output regions, a group of their own then.
            matrices: True for hidden matrices, which `torch.optim.Muon` takes; False for what it does not take;
                None for all.
        """
        self._warn_if_late()
        given: dict[str, Any] = {"lr": lr, "feedback_lr": feedback_lr, "output_rate": output_rate}
        given |= {"feedback_weight_decay": feedback_weight_decay}
        usual = self.recipe if lr is None else Recipe(feedback_weight_decay=0.0)
        recipe = dataclasses.replace(usual, **{key: value for key, value in given.items() if value is not None})
        members = Members.of(self.graph) if self.compilations.first is not None else Members()
        return groups_of(self.model, dict(self.feedback.items()), members, recipe, matrices)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Yields the model's parameters, then the feedback parameters."""
        self._warn_if_late()
        return super().parameters(recurse)

    def _warn_if_late(self) -> None:
        if self.compilations.first is None and not self.__dict__.get("_warned"):
            self._warned = True
            warnings.warn(
                "the net is captured at its first call, so feedback parameters do not exist yet and an optimizer "
                "made now will not move them; pass example_inputs= to altprop.compile.",
                stacklevel=3,
            )

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns everything, feedback included; tensors that stand in several places of the model once.

        So any format can hold it, safetensors too, which refuses two names for one tensor.
        """
        state = super().state_dict(*args, **kwargs)
        leave_out(other_names(self.model), state, f"{kwargs.get('prefix', '')}model.")
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        put_back(other_names(self.model), state_dict, f"{prefix}model.")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads what `state_dict` returned; the next step is bit-identical.

        Raises:
            CompileError: the checkpoint has feedback or optimizer state, and nothing is compiled yet.
        """
        extra = [k for k in state_dict if STATE_DICT.read(k).kind in _MADE_BY_CAPTURE and k != "state.step"]
        if self.compilations.first is None and extra:
            raise CompileError(
                "the checkpoint holds feedback or optimizer state, which exists only after capture: "
                "pass example_inputs= to altprop.compile."
            )
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

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
    for hook in (parameter._backward_hooks or {}).values():
        changed = hook(gradient)
        gradient = gradient if changed is None else changed
    if parameter.grad is None:
        parameter.grad = gradient
    else:
        parameter.grad.add_(gradient)
