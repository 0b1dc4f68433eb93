"""Private names of torch: each is there, has a reason, and still means what its reason says."""

import importlib.util
import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import sympy
import torch
from torch import fx, nn

from altprop.ir import torch_private as private

aten = torch.ops.aten


def traced() -> fx.GraphModule:
    return private.make_fx(lambda x: torch.relu(x) + 1)(torch.zeros(3))


def noted() -> bool:
    """The node that is traced within bears the note, and the next one none."""

    def work(x: torch.Tensor) -> torch.Tensor:
        with private.note_on_nodes({"region": "fc"}):
            x = torch.relu(x)
        return x + 1

    with fx.traceback.preserve_node_meta():
        graph = private.make_fx(work)(torch.zeros(3)).graph
    notes = {node.target: node.meta.get("custom") for node in graph.nodes}
    return notes[aten.relu.default] == {"region": "fc"} and notes[aten.add.Tensor] is None


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


def told_from_the_batch() -> bool:
    found = private.ShapeEnv().create_unbacked_symint()
    counts = (found, 2 * found, of_size().shape[0])
    return [private.has_free_unbacked_symbols(count.node.expr) for count in counts] == [True, True, False]


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


def written_statistics() -> bool:
    mean = torch.zeros(3)
    private.batch_norm_that_writes(torch.ones(2, 3), None, None, mean, torch.ones(3), True, 0.1, 1e-5)
    return bool(mean.all())


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


def spared() -> bool:
    """What a tracer puts into nn.Module goes through here."""
    kinds = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private.Patcher, "patch_method", lambda self, kind, *rest, **options: kinds.append(kind))
        traced()
    return kinds == [nn.Module, nn.Module]


def unordered() -> bool:
    with private.without_order_noted(lambda: True):
        noted = [node.meta["tensor_meta"] for node in traced().graph.nodes if "tensor_meta" in node.meta]
    return len(noted) == 3 and all(note.memory_format is None for note in noted)


def doubled() -> bool:
    """A trace computes a size that was made outside of it, of one that it has met."""
    x = of_size()
    size = 2 * x.shape[0]
    with private.sizes_computed():
        graph = private.make_fx(lambda given: given.new_zeros(size), tracing_mode="real")(x).graph
    return any("mul" in str(node.target) for node in graph.nodes)


def viewed() -> bool:
    mode, x = fakes()
    with private.in_kernel_invocation_manager(mode):
        view = aten.as_strided.default(x, (4, 3), (1, 4))
    return view.device.type == "meta" and view.stride() == (1, 4)


@torch.library.custom_op("test_private::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


double.register_autograd(lambda ctx, y: 2 * y, setup_context=lambda ctx, inputs, output: None)
MODULE, LAYER = nn.BatchNorm1d(2), nn.LSTM(1, 1)


def hooked() -> bool:
    weight = nn.Parameter(torch.ones(1))
    before = private.hooks_of_tensor(weight)
    weight.register_hook(lambda grad: grad)
    return not before and len(private.hooks_of_tensor(weight)) == 1


def hooks_in_order() -> bool:
    """Each table of hooks takes what the method registers whose name it bears."""
    module = nn.Linear(1, 1)
    module.register_forward_pre_hook(lambda module, given: None)
    module.register_forward_hook(lambda module, given, output: None)
    module.register_full_backward_pre_hook(lambda module, grads: None)
    module.register_full_backward_hook(lambda module, given, grads: None)
    return [len(getattr(module, table)) for table in private.HOOK_TABLES] == [1, 1, 1, 1]


def loggers() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in private.LOUD_LOGGERS)


def in_checkpoints() -> bool:
    class Counting(private.InCheckpoints):
        count = 3

        def into_checkpoint(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
            super().into_checkpoint(destination, prefix, keep_vars)
            destination[f"{prefix}count"] = torch.tensor(self.count)

        def out_of_checkpoint(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
            self.count = int(state_dict.pop(f"{prefix}count"))
            super().out_of_checkpoint(state_dict, prefix, *rest)

    outer = nn.Sequential(Counting())
    outer[0].register_buffer("own", torch.zeros(1))
    outer.load_state_dict({"0.own": torch.ones(1), "0.count": torch.tensor(5)})
    return outer.state_dict().keys() == {"0.own", "0.count"} and outer[0].count == 5 and bool(outer[0].own == 1)


def distributions_checked() -> bool:
    distribution, before = torch.distributions.Distribution, private.distributions_checked()
    distribution.set_default_validate_args(not before)
    turned = private.distributions_checked() is not before
    distribution.set_default_validate_args(before)
    return turned


def autograd_functions_heard() -> bool:
    heard: list[type] = []

    class Same(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

    spelled_before = Same.apply
    with private.listen_to_autograd_functions(heard.append):
        spelled_before(torch.ones(1))
    spelled_before(torch.ones(1))
    return heard == [Same]


LAYOUT = torch.channels_last
DERIVATIVE = "Autograd"
COMPOSITE = "CompositeImplicitAutograd"

MEANINGS: dict[str, Callable[[], object]] = {
    "BatchNormBase": lambda: isinstance(MODULE, private.BatchNormBase),
    "ConstantSource": lambda: private.ConstantSource("batch").name,
    "DataDependentOutputException": lambda: raised(private.DataDependentOutputException, lambda x: x.sum().item()),
    "DimDynamic": lambda: isinstance(of_size().shape[0], torch.SymInt),
    "DynamicOutputShapeException": lambda: raised(private.DynamicOutputShapeException, torch.nonzero),
    "FakeTensor": lambda: isinstance(fakes()[1], private.FakeTensor),
    "FakeTensorMode": lambda: fakes()[1].fake_mode is not None,
    "FunctionSchema": lambda: isinstance(private.schema_of(aten.add.Tensor), private.FunctionSchema),
    "HOOK_TABLES": hooks_in_order,
    "InCheckpoints": in_checkpoints,
    "LOUD_LOGGERS": loggers,
    "COMPILED_CALL": lambda: getattr(LAYER, private.COMPILED_CALL) is None,
    "OWN_WEIGHTS": lambda: getattr(LAYER, private.OWN_WEIGHTS)[0] is LAYER.weight_ih_l0,
    "backward_of": lambda: float(private.backward_of(double)(None, torch.tensor(3.0))) == 6,
    "GuardOnDataDependentSymNode": unbacked,
    "HigherOrderOperator": lambda: isinstance(torch.ops.higher_order.cond, private.HigherOrderOperator),
    "LazyGraphModule": lambda: issubclass(lazily(), private.LazyGraphModule),
    "OPDEFS": lambda: hasattr(private.OPDEFS, "values"),
    "OpOverload": lambda: isinstance(aten.add.Tensor, private.OpOverload),
    "OpOverloadPacket": lambda: isinstance(aten.add, private.OpOverloadPacket),
    "OptimizedModule": lambda: isinstance(torch.compile(nn.Linear(1, 1)), private.OptimizedModule),
    "Patcher": spared,
    "PythonReferenceAnalysis": interpreted,
    "ShapeEnv": lambda: of_size().fake_mode.shape_env is not None,
    "TensorBase": lambda: issubclass(torch.Tensor, private.TensorBase) and private.TensorBase.mul_ is not None,
    "batch_norm_that_writes": written_statistics,
    "below_autograd": below,
    "can_hold_data_of": lambda: private.can_hold_data_of(torch.zeros(2), torch.zeros(3)),
    "enable_python_dispatcher": on_python,
    "distributions_checked": distributions_checked,
    "fill_defaults": with_defaults,
    "get_fast_op_impls": lambda: aten.add.Tensor in private.get_fast_op_impls(),
    "get_proxy_mode": told,
    "has_backward": lambda: private.has_backward(double),
    "has_any_kernel": lambda: private.has_any_kernel("aten::add.Tensor"),
    "has_computed_kernel_for_key": lambda: private.has_computed_kernel_for_key("aten::add.Tensor", "CPU"),
    "has_free_unbacked_symbols": told_from_the_batch,
    "has_kernel_for_key": lambda: private.has_kernel_for_key("aten::linear", COMPOSITE),
    "hooks_of_tensor": hooked,
    "in_kernel_invocation_manager": viewed,
    "is_contiguous_or_false": lambda: (
        private.is_contiguous_or_false(of_size()) and not private.is_contiguous_or_false(of_size().t())
    ),
    "kernel_of": lambda: float(private.kernel_of(aten.add.Tensor)(torch.ones(()), torch.ones(()))) == 2,
    "listen_to_autograd_functions": autograd_functions_heard,
    "make_fx": lambda: next(n.target for n in traced().graph.nodes if n.op == "call_function") is aten.relu.default,
    "mkldnn_enabled": onednn_off,
    "name_in_trace": lambda: private.name_in_trace(fx.Graph(), "add") == "add",
    "names_of_weights": lambda: private.names_of_weights(LAYER)[:2] == ["weight_ih_l0", "weight_hh_l0"],
    "note_on_nodes": noted,
    "overload_name": lambda: private.overload_name(aten.add.Tensor) == "Tensor",
    "override_composites": overridden,
    "own_buffers": lambda: private.own_buffers(MODULE)["running_mean"] is MODULE.running_mean,
    "own_modules": lambda: private.own_modules(nn.Sequential(MODULE))["0"] is MODULE,
    "own_parameters": lambda: private.own_parameters(MODULE)["weight"] is MODULE.weight,
    "pytree": flattened,
    "register_op_impl": lambda: callable(private.register_op_impl(operator.add)),
    "registered_for_key": lambda: "aten::linear" in private.registered_for_key(COMPOSITE),
    "require": required,
    "schema_of": lambda: private.schema_of(aten.add_.Tensor).arguments[0].is_write,
    "set_grad_enabled": without_grad,
    "set_mkldnn_enabled": onednn_off,
    "setup_of": lambda: callable(private.setup_of(double)),
    "split_decompositions": overridden,
    "suggest_memory_format": lambda: (
        private.suggest_memory_format(torch.zeros(1, 2, 3, 3).to(memory_format=LAYOUT)) == LAYOUT
    ),
    "sizes_computed": doubled,
    "sympy_functions": interpreted,
    "sympy_interp": interpreted,
    "times_written": lambda: private.times_written(torch.ones(1).add_(1)) == 1,
    "track_tensor_tree": told,
    "use_lazy_graph_module": lambda: lazily() is not type(traced()),
    "without_order_noted": unordered,
    "wrapped_operator": lambda: private.wrapped_operator(SimpleNamespace(_op=aten.neg.default)) is aten.neg.default,
}


def test_each_has_a_reason_and_a_meaning() -> None:
    """A function of ours says its reason itself."""
    names = set(private.__all__) - {"REASONS"}
    ours = {name for name in names if getattr(getattr(private, name), "__module__", "") == private.__name__}
    told = private.REASONS | {name: str(getattr(private, name).__doc__) for name in ours}
    assert names == told.keys() == MEANINGS.keys()
    assert all(len(reason.split()) > 3 for reason in told.values())


@pytest.mark.parametrize("name", sorted(MEANINGS))
def test_it_still_means_this(name: str) -> None:
    assert MEANINGS[name](), f"{name}: {private.REASONS.get(name) or getattr(private, name).__doc__}"
