"""Runs a step in onnxruntime, whose states stay in memory that the session reads and writes itself.

The net's tensors change places with others of their form at every step, so that the net always holds what is present.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from altprop.ir.errors import CompileError
from altprop.ir.program import Slot
from altprop.ir.session import STEP, SessionProgram
from altprop.runtime.bindings import Bindings
from altprop.runtime.ranges import Range

_STATES = ("parameter", "buffer", "feedback", "state")
# Places that bindings are kept for: two take turns, and as many more where another session moves the same tensors.
_MOST_BOUND = 8
CPU = torch.device("cpu")
CUDA = "CUDAExecutionProvider"


class Binding:
    """What a session reads and writes, for one set of places of the net's tensors.

    A number that is given again, such as a rate, is not bound again.

    Attributes:
        engine: onnxruntime's binding.
        keeps: every tensor that is bound, so that nobody else gets its memory.
        moves: what the step moves, each with the memory of its new value.
    """

    def __init__(self, engine: Any, keeps: list[torch.Tensor], moves: "list[Moved]") -> None:
        self.engine, self.keeps, self.moves = engine, keeps, moves
        self._numbers: dict[str, tuple[torch.Tensor, int]] = {}

    def give(self, name: str, value: torch.Tensor) -> None:
        """Binds an input."""
        if value.dim():
            _bind_input(self.engine, name, value)
            return
        bound, place = self._numbers.get(name, (None, 0))
        if bound is not value or place != value.data_ptr():
            _bind_input(self.engine, name, value)
            self._numbers[name] = value, value.data_ptr()


@dataclasses.dataclass(frozen=True)
class Moved:
    """A state that a step moves.

    Attributes:
        index: which of the session's states it is.
        new: the memory that its new value is written to.
        swaps: whether the net's tensor may change places with it; where it shares its memory with another, or lies in
            it with gaps, the new value is copied into it.
    """

    index: int
    new: torch.Tensor
    swaps: bool


class Session:
    """One step in onnxruntime, which reads and writes the net's own memory.

    Each tensor that moves has memory twice: a step reads one and writes the other, then they change places, so that
    nothing is copied and the net always holds what the last step made.

    Args:
        program: the step.
        asked: the integers that it may be given; onnxruntime counts negative ones from the end.
        bindings: finds the net's tensors; a number such as the learning rate may stay on the CPU.
    """

    def __init__(self, program: SessionProgram, asked: list[Range], bindings: Bindings) -> None:
        self.program, self.ranges, self.bindings = program, asked, bindings
        self.device = bindings.device
        self.engine = open_engine(program.model, self.device)
        self.states = [slot for slot in program.inputs if slot.kind in _STATES and slot != STEP]
        self._getters = [get for get in map(bindings.getter, self.states) if get is not None]
        self._spare: dict[int, torch.Tensor] = {}
        self._bound: dict[tuple[int, ...], Binding] = {}

    @torch.no_grad()
    def run(self, given: Mapping[Slot, torch.Tensor]) -> torch.Tensor:
        """Runs one step.

        Args:
            given: inputs, targets and scalars, contiguous.

        Returns:
            The loss.
        """
        states = [get() for get in self._getters]
        binding = self._binding(states)
        for slot, value in given.items():
            if slot in self.program.inputs:
                binding.give(self.program.inputs[slot], value)
        loss = torch.empty((), dtype=self._loss_type(states), device=self.device)
        _bind_output(binding.engine, self.program.outputs[Slot("loss", "loss")], loss)
        self._run(binding.engine)
        for moved in binding.moves:
            state = states[moved.index]
            if moved.swaps:
                self._spare[moved.index] = state.data
                state.data = moved.new
            else:
                state.copy_(moved.new)
        return loss

    def _loss_type(self, states: Sequence[torch.Tensor]) -> torch.dtype:
        types = (one.dtype for slot, one in zip(self.states, states, strict=True) if slot.kind == "parameter")
        return next(types, torch.float32)

    def _run(self, binding: Any) -> None:
        """The session has a stream of its own: it begins when torch's is done, and torch's goes on when it is."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.engine.run_with_iobinding(binding)
        if self.device.type == "cuda":
            binding.synchronize_outputs()

    def _binding(self, states: Sequence[torch.Tensor]) -> Binding:
        """The binding for the places of the net's tensors: two in all, as long as nobody replaces one."""
        places = tuple([one.data_ptr() if one.is_contiguous() else 0 for one in states])
        if 0 in places:  # what lies with gaps is read from a copy
            self._bound.clear()
        if places not in self._bound:
            if len(self._bound) == _MOST_BOUND:
                self._bound.clear()
            self._bound[places] = self._bind(states)
        return self._bound[places]

    def _bind(self, states: Sequence[torch.Tensor]) -> Binding:
        binding = self.engine.io_binding()
        shared = Counter(one.untyped_storage().data_ptr() for one in self.bindings.tensors())
        keeps, moves = [], []
        for index, (slot, state) in enumerate(zip(self.states, states, strict=True)):
            read = state.detach().contiguous()
            keeps.append(read)
            _bind_input(binding, self.program.inputs[slot], read)
            if slot in self.program.outputs:
                swaps = _is_alone(state) and shared[state.untyped_storage().data_ptr()] == 1
                new = self._free(index, read)
                keeps.append(new)
                moves.append(Moved(index, new, swaps))
                _bind_output(binding, self.program.outputs[slot], new)
        for slot, name in self.program.outputs.items():
            if slot not in self.states and slot.kind != "loss":
                binding.bind_output(name, "cpu")
        return Binding(binding, keeps, moves)

    def _free(self, index: int, like: torch.Tensor) -> torch.Tensor:
        """Memory for the new value of a state: what it left at its last move, if that has its form."""
        spare = self._spare.get(index)
        if spare is None or spare.shape != like.shape or spare.dtype != like.dtype or spare.device != like.device:
            spare = self._spare[index] = torch.empty_like(like)
        return spare


def _is_alone(state: torch.Tensor) -> bool:
    """Whether a tensor fills its memory without gaps, all of it."""
    return state.is_contiguous() and state.untyped_storage().nbytes() == state.numel() * state.element_size()


def open_engine(model: bytes, device: torch.device = CPU) -> Any:
    """Opens a session where the net is, with all optimisations and as many threads as torch has.

    Raises:
        CompileError: onnxruntime is not installed, or not for this device.
    """
    wanted = installed(device)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # What runs in torch between two steps gets the processor at once.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    engine = onnxruntime.InferenceSession(model, options, providers=wanted)
    if device.type == "cuda" and CUDA not in engine.get_providers():
        # It goes on without a word where it cannot load a library.
        raise CompileError(
            f"onnxruntime could not start its CUDA provider for {device}: install the CUDA and cuDNN that this "
            "onnxruntime-gpu was built for, or move the net with net.cpu()."
        )
    return engine


def installed(device: torch.device) -> list[Any]:
    """Returns the providers of the installed onnxruntime for a device; see `providers`.

    Raises:
        CompileError: onnxruntime is not installed, or not for this device.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise CompileError(
            'backend="onnxruntime" needs the package onnxruntime: pip install "altprop[onnx]".'
        ) from error
    return providers(device, onnxruntime.get_available_providers())


def providers(device: torch.device, available: Sequence[str]) -> list[Any]:
    """Returns what runs a session: onnxruntime's providers for the net's device, the best first.

    Args:
        device: where the net's tensors are.
        available: the providers of the installed onnxruntime.

    Raises:
        CompileError: the installed onnxruntime has none for this device.
    """
    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    if device.type != "cuda":
        raise CompileError(f'backend="onnxruntime" runs on the CPU and on CUDA; the net is on {device}: move it first.')
    if CUDA not in available:
        raise CompileError(
            f"the net is on {device}, and the installed onnxruntime has no CUDA: pip uninstall onnxruntime, then "
            'pip install "altprop[gpu]"; or move the net with net.cpu().'
        )
    return [(CUDA, {"device_id": device.index or 0} | as_torch_computes()), "CPUExecutionProvider"]


def as_torch_computes() -> dict[str, str]:
    """Returns the CUDA provider's options that torch has as switches: TF32, and trying out convolutions' algorithms.

    Left alone, the provider rounds to TF32 and tries all algorithms at every new shape.
    """
    cudnn = torch.backends.cudnn
    tf32 = torch.backends.cuda.matmul.allow_tf32 and cudnn.allow_tf32
    return {
        "use_tf32": str(int(tf32)),
        "cudnn_conv_algo_search": "EXHAUSTIVE" if cudnn.benchmark else "HEURISTIC",
    }


def _bind_input(binding: Any, name: str, value: torch.Tensor) -> None:
    binding.bind_input(name, *_place(value), _numpy_type(value), tuple(value.shape), value.data_ptr())


def _bind_output(binding: Any, name: str, value: torch.Tensor) -> None:
    binding.bind_output(name, *_place(value), _numpy_type(value), tuple(value.shape), value.data_ptr())


def _place(value: torch.Tensor) -> tuple[str, int]:
    return value.device.type, value.device.index or 0


def _numpy_type(value: torch.Tensor) -> Any:
    if value.dtype not in _TYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _TYPES)
        raise CompileError(f'backend="onnxruntime" takes tensors of {names}, not of {value.dtype}: convert it first.')
    return _TYPES[value.dtype]


_TYPES: dict[torch.dtype, Any] = {
    dtype: torch.empty(0, dtype=dtype).numpy().dtype.type
    for dtype in (torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)
}
