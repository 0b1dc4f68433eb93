"""Private names of torch: each is there, has a reason, and still means what its reason says."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
from torch import fx, nn

from altprop.ir import torch_private as private

aten = torch.ops.aten


def traced() -> fx.GraphModule:
    return private.make_fx(lambda x: torch.relu(x) + 1)(torch.zeros(3))


def fakes() -> tuple[Any, torch.Tensor]:
    mode = private.FakeTensorMode()
    with mode:
        return mode, torch.empty(3, 4)


def lazily() -> type:
    with private.use_lazy_graph_module(True):
        return type(traced())


def raised(error: type[Exception], work: Callable[[torch.Tensor], object]) -> bool:
    mode, x = fakes()
    with mode, pytest.raises(error):
        work(x)
    return True


def of_size() -> Any:
    """A fake tensor whose first size is a symbol."""
    mode = private.FakeTensorMode(shape_env=private.ShapeEnv())
    symbol = mode.shape_env.create_symbol(4, private.ConstantSource("batch"), dynamic_dim=private.DimDynamic.DYNAMIC)
    size = mode.shape_env.create_symintnode(symbol, hint=4)
    with mode:
        return torch.empty(size, 2)


def unbacked() -> bool:
    env = private.ShapeEnv()
    with pytest.raises(private.GuardOnDataDependentSymNode):
        bool(env.create_unbacked_symint() > 3)
    return True


def without_grad() -> bool:
    before = torch.is_grad_enabled()
    private.set_grad_enabled(False)
    off = not torch.is_grad_enabled()
    private.set_grad_enabled(before)
    return off and torch.is_grad_enabled() == before


def onednn_off() -> bool:
    before = private.mkldnn_enabled()
    private.set_mkldnn_enabled(False)
    off = private.mkldnn_enabled() is False
    private.set_mkldnn_enabled(before)
    return off and private.mkldnn_enabled() == before


def below() -> bool:
    x = torch.ones(2, requires_grad=True)
    with private.below_autograd():
        return not (x * 2).requires_grad


def on_python() -> bool:
    with private.enable_python_dispatcher():
        return bool((torch.ones(2) + 1).sum() == 4)


def with_defaults() -> bool:
    schema = aten.add.Tensor._schema
    args, kwargs = private.fill_defaults(schema, (torch.ones(1), torch.ones(1)), {})
    return len(args) == 2 and kwargs == {"alpha": 1}


def interpreted() -> bool:
    n = sympy.Symbol("n", integer=True)
    expression = private.sympy_functions.FloorDiv(n, sympy.Integer(2)) + 1
    return bool(private.sympy_interp(private.PythonReferenceAnalysis, {n: 7}, expression) == 4)


def overridden() -> bool:
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    with private.override_composites({aten.reshape_as.default: double}), torch.inference_mode():
        return private.split_decompositions({})[0].keys() >= {aten.linear.default}


def required() -> bool:
    private.require(True)
    with pytest.raises(RuntimeError):
        private.require(False)
    return True


def flattened() -> bool:
    tree = {"a": [1, 2], "b": (3,)}
    leaves, spec = private.pytree.tree_flatten(tree)
    return leaves == [1, 2, 3] and private.pytree.tree_unflatten(leaves, spec) == tree


def told() -> bool:
    """A tracer is told of an operator and of what it makes."""

    def add(x: torch.Tensor) -> torch.Tensor:
        tracer = private.get_proxy_mode().tracer
        made = tracer.create_proxy("call_function", aten.neg.default, (tracer.unwrap_proxy(x),), {})
        return private.track_tensor_tree(torch.empty(3), made, constant=None, tracer=tracer)

    graph = private.make_fx(add)(torch.ones(3)).graph
    neg = next(node for node in graph.nodes if node.target is aten.neg.default)
    return "val" in neg.meta and [user.op for user in neg.users] == ["output"] and not private.get_proxy_mode()


def viewed() -> bool:
    mode, x = fakes()
    with private.in_kernel_invocation_manager(mode):
        view = aten.as_strided.default(x, (4, 3), (1, 4))
    return view.device.type == "meta" and view.stride() == (1, 4)


LAYOUT = torch.channels_last
DERIVATIVE = "Autograd"
COMPOSITE = "CompositeImplicitAutograd"

MEANINGS: dict[str, Callable[[], object]] = {
    "ConstantSource": lambda: private.ConstantSource("batch").name,
    "DataDependentOutputException": lambda: raised(private.DataDependentOutputException, lambda x: x.sum().item()),
    "DimDynamic": lambda: isinstance(of_size().shape[0], torch.SymInt),
    "DynamicOutputShapeException": lambda: raised(private.DynamicOutputShapeException, torch.nonzero),
    "FakeTensor": lambda: isinstance(fakes()[1], private.FakeTensor),
    "FakeTensorMode": lambda: fakes()[1].fake_mode is not None,
    "GuardOnDataDependentSymNode": unbacked,
    "HigherOrderOperator": lambda: isinstance(torch.ops.higher_order.cond, private.HigherOrderOperator),
    "LazyGraphModule": lambda: issubclass(lazily(), private.LazyGraphModule),
    "OPDEFS": lambda: hasattr(private.OPDEFS, "values"),
    "OpOverload": lambda: isinstance(aten.add.Tensor, private.OpOverload),
    "OpOverloadPacket": lambda: isinstance(aten.add, private.OpOverloadPacket),
    "OptimizedModule": lambda: isinstance(torch.compile(nn.Linear(1, 1)), private.OptimizedModule),
    "PythonReferenceAnalysis": interpreted,
    "ShapeEnv": lambda: of_size().fake_mode.shape_env is not None,
    "TensorBase": lambda: issubclass(torch.Tensor, private.TensorBase) and private.TensorBase.mul_ is not None,
    "below_autograd": below,
    "can_hold_data_of": lambda: private.can_hold_data_of(torch.zeros(2), torch.zeros(3)),
    "enable_python_dispatcher": on_python,
    "fill_defaults": with_defaults,
    "get_fast_op_impls": lambda: aten.add.Tensor in private.get_fast_op_impls(),
    "get_proxy_mode": told,
    "has_any_kernel": lambda: private.has_any_kernel("aten::add.Tensor"),
    "has_computed_kernel_for_key": lambda: private.has_computed_kernel_for_key("aten::add.Tensor", "CPU"),
    "has_kernel_for_key": lambda: private.has_kernel_for_key("aten::linear", COMPOSITE),
    "in_kernel_invocation_manager": viewed,
    "is_contiguous_or_false": lambda: (
        private.is_contiguous_or_false(of_size()) and not private.is_contiguous_or_false(of_size().t())
    ),
    "make_fx": lambda: next(n.target for n in traced().graph.nodes if n.op == "call_function") is aten.relu.default,
    "mkldnn_enabled": onednn_off,
    "override_composites": overridden,
    "pytree": flattened,
    "register_op_impl": lambda: callable(private.register_op_impl(operator.add)),
    "registered_for_key": lambda: "aten::linear" in private.registered_for_key(COMPOSITE),
    "require": required,
    "set_grad_enabled": without_grad,
    "set_mkldnn_enabled": onednn_off,
    "split_decompositions": overridden,
    "suggest_memory_format": lambda: (
        private.suggest_memory_format(torch.zeros(1, 2, 3, 3).to(memory_format=LAYOUT)) == LAYOUT
    ),
    "sympy_functions": interpreted,
    "sympy_interp": interpreted,
    "track_tensor_tree": told,
    "use_lazy_graph_module": lambda: lazily() is not type(traced()),
}


def test_each_has_a_reason_and_a_meaning() -> None:
    names = set(private.__all__) - {"ATTRIBUTES", "REASONS"}
    assert names == private.REASONS.keys() == MEANINGS.keys()
    assert all(len(reason.split()) > 3 for reason in private.REASONS.values())


@torch.library.custom_op("test_private::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


double.register_autograd(lambda ctx, y: 2 * y, setup_context=lambda ctx, inputs, output: None)
MODULE = nn.BatchNorm1d(2)
USERS = torch.ops.test_private.double.default
ENVIRONMENT = private.ShapeEnv()

# attribute: an object that has it, and what it must be
HOLDERS: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    "_backward_fn": (double, callable),
    "_backward_hooks": (MODULE, lambda found: not found),
    "_buffers": (MODULE, lambda found: "running_mean" in found),
    "_flat_weights_names": (nn.LSTM(1, 1), lambda found: found[:2] == ["weight_ih_l0", "weight_hh_l0"]),
    "_is_setup_context_defined": (torch.autograd.function, callable),
    "_modules": (nn.Sequential(MODULE), lambda found: found["0"] is MODULE),
    "_op": (aten.add.Tensor, lambda found: float(found(torch.ones(()), torch.ones(()))) == 2),
    "_opname": (USERS, lambda found: found == "double"),
    "_overloadname": (aten.add.Tensor, lambda found: found == "Tensor"),
    "_parameters": (MODULE, lambda found: found["weight"] is MODULE.weight),
    "_replacements_version_counter": (ENVIRONMENT, lambda found: isinstance(found, int)),
    "_schema": (aten.add_.Tensor, lambda found: found.arguments[0].is_write),
    "_setup_context_fn": (double, callable),
    "_target_to_str": (fx.Graph(), lambda found: found("add") == "add"),
    "_validate_args": (torch.distributions.Distribution, lambda found: isinstance(found, bool)),
    "_version": (torch.ones(1).add_(1), lambda found: found == 1),
    "_version_counter": (ENVIRONMENT, lambda found: isinstance(found, int)),
}


@pytest.mark.parametrize("name", sorted(private.ATTRIBUTES))
def test_an_attribute_still_means_this(name: str) -> None:
    holder, fits = HOLDERS[name]
    assert fits(getattr(holder, name)), f"{name}: {private.ATTRIBUTES[name]}"


@pytest.mark.parametrize("name", sorted(MEANINGS))
def test_it_still_means_this(name: str) -> None:
    assert MEANINGS[name](), f"{name}: {private.REASONS[name]}"
