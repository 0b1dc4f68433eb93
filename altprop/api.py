"""`altprop.compile`: the door from a model to a local-learning program."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from altprop import hub
from altprop.compiler.capture.captured import Captured, batch_of
from altprop.compiler.capture.wrappers import unwrap
from altprop.compiler.examine.feedback_size import refuse_too_large
from altprop.compiler.export.door import export, make_session
from altprop.compiler.pipeline import Compiled, Options, compile_graph
from altprop.exporting import subject_of
from altprop.ir.alone import alone
from altprop.ir.backend import Wants
from altprop.ir.errors import CompileError
from altprop.ir.loss import Loss, LossFunction, get_loss
from altprop.ir.optimizers import Optimizer
from altprop.ir.plain_tensors import refuse_model
from altprop.ir.plan import WiringPlan, is_plan_file
from altprop.ir.session import SessionProgram
from altprop.passes.flattening.traced_loss import tell_parameters
from altprop.read_devices import Devices, read_devices
from altprop.rules.base import Rule
from altprop.rules.beside_plan import check_beside_plan
from altprop.rules.registry import DEFAULT_PLAN, recipe_of, rules_of
from altprop.runtime.backends import table as backends
from altprop.runtime.backends.base import Backend
from altprop.runtime.net import LocalNet
from altprop.runtime.variant import Variant
from altprop.schedules import Schedule, make_schedule


@dataclasses.dataclass(frozen=True)
class _Compiler:
    """Compiles a model for the inputs of a call; what the net calls when it meets a new form of input."""

    options: Options
    devices: Devices
    captured: Captured | None = None

    def __call__(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], target: Any, plan: WiringPlan | None
    ) -> Compiled:
        options = dataclasses.replace(self.options, loss=self.options.loss.fresh())
        options = options if plan is None else dataclasses.replace(options, plan=plan)
        known = self.captured
        graph = known.graph if known is not None and known.serves(model, args, kwargs) else None
        made = compile_graph(model, args, kwargs, options, target, graph)
        if graph is not None and not made.facts.hold(batch_of(args, kwargs)):  # loss and rules were told of its example
            made = compile_graph(model, args, kwargs, options, target)
        refuse_too_large(made.graph, model)
        return made

    @alone()
    def schedule(self, net: LocalNet, devices: Any, **wanted: Any) -> Schedule:
        return make_schedule(net, self.options, self.devices if devices is None else devices, **wanted)

    @alone()
    def export(self, net: LocalNet, path: Path, **options: Any) -> Path:
        """Writes a program of a net as a file; see `LocalNet.export`."""
        target = options.pop("target", None)
        return export(subject_of(net, self.options, target), path, **options)

    @alone()
    def session(self, net: LocalNet, variant: Variant, target: Any) -> SessionProgram:
        """Returns the step of one of the net's compilations for onnxruntime, compared with torch."""
        return make_session(subject_of(net, self.options, target, variant))

    def save_pretrained(self, net: LocalNet, folder: str | Path, **options: Any) -> Path:
        """Writes a net as a folder; see `LocalNet.save_pretrained`."""
        return hub.save_pretrained(net, folder, **options)

    def push_to_hub(self, net: LocalNet, name: str, **options: Any) -> str:
        """Uploads a net; see `LocalNet.push_to_hub`."""
        return hub.push_to_hub(net, name, **options)

    def __getstate__(self) -> dict[str, Any]:
        """A compiler in a file captures anew."""
        return {"options": self.options, "devices": self.devices, "captured": None}


def compile(
    model: nn.Module | Captured,
    rule: str | Rule | Mapping[str, str | Rule] | None = None,
    *,
    example_inputs: Sequence[Any] | torch.Tensor | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    plan: str | Path | WiringPlan | None = None,
    regions: str | Sequence[str] = "layer",
    loss: str | LossFunction = "cross_entropy",
    optimizer: Optimizer | None = None,
    devices: Any = None,
    backend: str | Backend = "eager",
    seed: int = 0,
    loss_scale: float | Callable[[], float] | None = None,
    memory: str = "usual",
) -> LocalNet:
    """Rewrites a model into a local-learning program.

    Args:
        model: any module that `torch.export` can capture. It is neither copied nor altered: parameters are shared. Or
            what `altprop.capture` returned, which needs no example inputs. Of what `torch.compile` or this function
            returned, the model inside is taken.
        rule: a rule as text, `"reclra(beta=0.1)"`, as an object, or by globs over region names, first match first.
            None: "reclra(scale=0.1, units='beta')", or what the regions of a plan follow. Beside a plan it must be one
            that the plan follows.
        example_inputs: tuple of inputs, or the only one, with a batch of two or more; None captures at the first call.
        example_kwargs: keyword inputs.
        plan: None for the rule's own, and for "edges" where no rule is named either; "chain", "direct", "edges",
            "blocks", "blocks(gap=3)", a plan, or the path of a file; "auto" weighs many for `devices`
            (`net.graph.weighed` says what it weighed).
        regions: "layer" (attention is one region with its projections), "operator" (its output projection is one of
            its own), "block", or globs over module names.
        loss: a name, or a callable `(output, target) -> scalar`; one whose `reduction` is not "sum" counts as the mean
            over samples.
        optimizer: `altprop.optim.SGD`, `Adam`, `AdamW` or `Muon`, to have updates inside the program (`net.step`).
        devices: None; one device that the model is on already; a number of devices like the model's; a list of
            devices, `["cuda:0", "cuda:1"]`; or a `DeviceMesh` of processes with the dimensions `("replica", "region")`
            or `("region",)`. It is what plan="auto" plans for, and what `net.schedule()` places the net on unless it is
            told otherwise.
        backend: "eager", "inductor", "cudagraphs", which records `net.step` on an NVIDIA GPU and replays it, or
            "onnxruntime", which runs `net.step` alone, on the CPU or a CUDA device; or one of your own, an
            `altprop.backends.Backend` or the name that it is registered under.
        seed: feedback is a function of the seed and the connection's name.
        loss_scale: what a loop of your own multiplies the loss with before `backward`, or a function that returns it,
            such as `scaler.get_scale`. None: it is told from the gradient where the loss is a cross-entropy or an
            absolute difference, else taken to be 1, with one warning under rules whose errors depend on it.
        memory: "usual"; or "least": `net.step` and `net.backward` keep of the forward only what they must, and run it
            again where updates read it. They give the same bits (but for the order in which updates of a shared
            parameter are added up), and take up to one forward longer. `loss.backward()` after `net(x)`, and
            schedules, keep what they kept.

    Raises:
        CompileError: names what cannot be compiled, where, and what to do.
    """
    captured, example_inputs, example_kwargs = _captured(model, example_inputs, example_kwargs)
    model = _module_of(model)
    _refuse_optimizer(optimizer)
    runs = backends.get(backend)
    wants = _wants(runs.wants, runs.name, memory)
    _check_device(model, devices)
    wanted = read_devices(devices)
    options = _options(rule, plan, regions, _loss_of(loss, optimizer), optimizer, wants, wanted)
    compiler, recipe = _Compiler(options, wanted, captured), recipe_of(options.rules, options.plan)
    net = LocalNet(model, compiler, optimizer=optimizer, backend=runs, seed=seed, loss_scale=loss_scale, recipe=recipe)
    net.training = model.training
    if isinstance(example_inputs, torch.Tensor):
        example_inputs = (example_inputs,)
    if example_inputs is not None or example_kwargs:
        net.capture(*tuple(example_inputs or ()), **dict(example_kwargs or {}))
    return net


def _module_of(model: nn.Module | Captured) -> nn.Module:
    """The module itself, of what a caller gave.

    Raises:
        CompileError: it is none, or one that no program can be made of.
    """
    found = model.model if isinstance(model, Captured) else unwrap(model)
    if not isinstance(found, nn.Module):
        raise CompileError(f"altprop.compile takes an nn.Module, not {type(found).__name__}.")
    refuse_model(found)
    return found


def _refuse_optimizer(optimizer: Any) -> None:
    """Refuses an optimizer that is none of ours.

    Raises:
        CompileError: says where it goes instead.
    """
    if optimizer is None or isinstance(optimizer, Optimizer):
        return
    shown = optimizer.__name__ if isinstance(optimizer, type) else repr(optimizer).split("\n")[0]
    raise CompileError(
        f"optimizer={shown}: the optimizer inside the program is an altprop.optim.SGD(...), Adam(...), "
        "AdamW(...), or another altprop.optim.Optimizer; one of torch.optim takes net.param_groups(...)."
    )


def _wants(usual: Wants, name: str, memory: str) -> Wants:
    """How programs are made for a backend of a name, with as much memory as is wished.

    Raises:
        CompileError: there is no such wish, or the backend's own compiler decides what is kept.
    """
    if memory not in ("usual", "least"):
        raise CompileError(f'memory={memory!r}: there are "usual" and "least".')
    if memory == "least" and (usual.compiled or usual.whole_step):
        raise CompileError(
            f'memory="least" beside backend="{name}": what a step keeps is decided by that engine. '
            'Take backend="eager" or "cudagraphs".'
        )
    return dataclasses.replace(usual, least_memory=True) if memory == "least" else usual


def _options(
    rule: Any,
    plan: str | Path | WiringPlan | None,
    regions: str | Sequence[str],
    loss: Loss,
    optimizer: Optimizer | None,
    wants: Wants,
    devices: Devices,
) -> Options:
    named = DEFAULT_PLAN if rule is None and plan is None else read_plan(plan)
    return Options(
        rules=_rules_beside(rule, named),
        loss=loss,
        plan=named,
        regions=regions if isinstance(regions, str) else tuple(regions),
        optimizer=optimizer,
        wants=wants,
        devices=devices.count,
    )


def _captured(model: Any, inputs: Any, kwargs: Any) -> tuple[Captured | None, Any, Any]:
    """What a model was captured as, if it was, and the example inputs.

    Raises:
        CompileError: there are other example inputs beside those of the capture, or the model has changed since.
    """
    if not isinstance(model, Captured):
        return None, inputs, kwargs
    if inputs is not None or kwargs:
        raise CompileError("a captured model has its example inputs already: leave example_inputs out.")
    model.check()
    return model, model.args, model.kwargs


def _loss_of(loss: str | LossFunction, optimizer: Optimizer | None) -> Loss:
    """The loss; with an optimizer inside the program, none that has something to learn."""
    found = get_loss(loss)
    if optimizer is not None and isinstance(loss, nn.Module):
        learning = [name for name, parameter in loss.named_parameters() if parameter.requires_grad]
        if learning:
            raise CompileError(tell_parameters(found, learning))
    return found


def _rules_beside(
    rule: str | Rule | Mapping[str, str | Rule] | None, plan: str | WiringPlan | None
) -> dict[str, Rule | None]:
    """The rules by globs; those that were given must be what a finished plan says."""
    rules = rules_of(rule)
    if rule is not None and isinstance(plan, WiringPlan):
        check_beside_plan(rules, plan)
    return rules


def read_plan(plan: str | Path | WiringPlan | None) -> str | WiringPlan | None:
    """Returns the plan that a name, a plan or the path of a file stands for."""
    if is_plan_file(plan):
        return WiringPlan.load(plan)
    if plan is not None and not isinstance(plan, str | WiringPlan):
        raise CompileError(f"plan={plan!r}: give a plan's name, a plan, or the path of a file.")
    return plan


def _check_device(model: nn.Module, devices: Any) -> None:
    if not isinstance(devices, str | torch.device):
        return
    places = {str(p.device) for p in model.parameters()}
    if places - {str(devices)}:
        raise CompileError(f"the model is on {', '.join(sorted(places))}, not on {devices}: move it first.")
