"""Runs a step in onnxruntime, whose states stay in memory that the session reads and writes itself.

Each state has two buffers: a step reads one and writes the other, then they change places. The first is the net's own
tensor, so that nothing is copied unless somebody looks at the net after an odd number of steps.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from altprop.ir.errors import CompileError
from altprop.ir.program import Slot
from altprop.ir.session import SessionProgram
from altprop.runtime.ranges import Range

Lookup = Callable[[Slot], torch.Tensor]
CPU = torch.device("cpu")
CUDA = "CUDAExecutionProvider"


@dataclasses.dataclass
class Held:
    """The two buffers of one state, and which of them is the present one."""

    own: torch.Tensor
    buffers: tuple[torch.Tensor, torch.Tensor]
    turn: int = 0

    @staticmethod
    def of(own: torch.Tensor, moves: bool) -> "Held":
        """Makes the buffers of a net's tensor; one that never moves needs no second."""
        own = own.detach()
        first = own if own.is_contiguous() else own.contiguous()
        return Held(own, (first, torch.empty_like(first) if moves else first))

    def home(self) -> None:
        """Brings the present value into the net's own tensor."""
        present = self.buffers[self.turn]
        if present.data_ptr() != self.own.data_ptr():
            self.own.copy_(present)


class StateStore:
    """The states of a net between steps, shared by all its sessions."""

    def __init__(self) -> None:
        self.held: dict[Slot, Held] = {}
        self.version = 0

    def add(self, slots: Iterable[Slot], moving: Iterable[Slot], lookup: Lookup) -> None:
        """Takes over the tensors that are not here yet."""
        moves = set(moving)
        for slot in slots:
            if slot not in self.held:
                self.held[slot] = Held.of(lookup(slot), slot in moves)

    def release(self) -> None:
        """Brings everything home, and forgets it: the net may be changed before the next step."""
        for held in self.held.values():
            held.home()
        self.held.clear()
        self.version += 1


class Binding:
    """What a session reads and writes; a number that is given again, such as a rate, is not bound again."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
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


class Session:
    """One step in onnxruntime.

    Args:
        program: the step.
        asked: the integers that it may be given; onnxruntime counts negative ones from the end.
        device: where the net's tensors are; a number such as the learning rate may stay on the CPU.
    """

    def __init__(self, program: SessionProgram, asked: list[Range], device: torch.device = CPU) -> None:
        self.program, self.ranges = program, asked
        self.device = device
        self.engine = open_engine(program.model, device)
        self.states = [
            s for s in program.inputs if s.kind in ("parameter", "buffer", "feedback", "state") and s.name != "step"
        ]
        self._moving = [slot for slot in self.states if slot in program.outputs]
        self._version = -1
        self._held: list[Held] = []
        self._loss_type = torch.float32
        self._bindings: dict[Any, Binding] = {}

    def run(self, given: Mapping[Slot, torch.Tensor], store: StateStore, lookup: Lookup) -> torch.Tensor:
        """Runs one step.

        Args:
            given: inputs, targets and scalars, contiguous.
            store: the states; they move.
            lookup: finds the net's tensor of a state.

        Returns:
            The loss.
        """
        if self._version != store.version:
            self._take_over(store, lookup)
        binding = self._binding(store)
        for slot, value in given.items():
            if slot in self.program.inputs:
                binding.give(self.program.inputs[slot], value)
        loss = torch.empty((), dtype=self._loss_type, device=self.device)
        _bind_output(binding.engine, self.program.outputs[Slot("loss", "loss")], loss)
        self._run(binding.engine)
        for held in self._held:
            held.turn ^= 1
        return loss

    def _take_over(self, store: StateStore, lookup: Lookup) -> None:
        """Takes over the states, which stay the store's until it releases them."""
        store.add(self.states, self._moving, lookup)
        self._held = [store.held[slot] for slot in self._moving]
        self._bindings = {}
        types = (held.own.dtype for slot, held in store.held.items() if slot.kind == "parameter")
        self._loss_type = next(types, torch.float32)
        self._version = store.version

    def _run(self, binding: Any) -> None:
        """The session has a stream of its own: it begins when torch's is done, and torch's goes on when it is."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.engine.run_with_iobinding(binding)
        if self.device.type == "cuda":
            binding.synchronize_outputs()

    def _binding(self, store: StateStore) -> "Binding":
        """The binding for the present turns: two in all, as long as nobody touches the net between steps."""
        turns = tuple([held.turn for held in self._held])
        if turns not in self._bindings:
            self._bindings[turns] = Binding(self._bind(store))
        return self._bindings[turns]

    def _bind(self, store: StateStore) -> Any:
        binding = self.engine.io_binding()
        for slot in self.states:
            held = store.held[slot]
            _bind_input(binding, self.program.inputs[slot], held.buffers[held.turn])
        for slot, name in self.program.outputs.items():
            if slot in store.held:
                held = store.held[slot]
                _bind_output(binding, name, held.buffers[1 - held.turn])
            elif slot.kind != "loss":
                binding.bind_output(name, "cpu")
        return binding


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
