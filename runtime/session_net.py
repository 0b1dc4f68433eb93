"""`SessionNet`: a compiled model whose steps run in onnxruntime."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from altprop.ir.errors import CompileError
from altprop.ir.program import Slot
from altprop.runtime.bad_batch import refuse_wrong_integers
from altprop.runtime.net import LocalNet
from altprop.runtime.onnx_session import Session, StateStore, installed
from altprop.runtime.ranges import ranges
from altprop.runtime.variant import Call, Variant

STEP, SEED = Slot("state", "step"), Slot("scalar", "seed")
LOOKED_AT = ("model", "feedback", "state")


class SessionNet(LocalNet):
    """A net whose `step` runs in onnxruntime; everything else runs in torch.

    Between steps parameters, buffers, feedback and optimizer state belong to the session. They are brought home
    whenever `net.model`, `net.feedback`, `net.state`, `net.state_dict()` or `net.parameters()` is asked for, or
    the net is called: keep no parameter in a variable over a step.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.__dict__["_store"] = StateStore()
        self.__dict__["_sessions"] = {}
        self.__dict__["_busy"] = False
        super().__init__(*args, **options)
        self.__dict__["_store"], self.__dict__["_sessions"] = StateStore(), {}

    def __getattr__(self, name: str) -> Any:
        if name in LOOKED_AT:
            self._come_home()
        return super().__getattr__(name)

    def _come_home(self) -> None:
        store = self.__dict__.get("_store")
        if store is not None and store.held and not self.__dict__["_busy"]:
            with torch.no_grad():
                store.release()

    def step(self, inputs: Any, target: Any) -> torch.Tensor:
        """Runs one training step in onnxruntime; see `LocalNet.step`.

        Raises:
            CompileError: the net was compiled without `optimizer=`.
        """
        if self.optimizer is None:
            raise CompileError("net.step needs an optimizer inside the program: altprop.compile(..., optimizer=...).")
        self.__dict__["_busy"] = True
        try:
            call = Call.from_inputs(inputs)
            variant = self._variant(call, target)
            session = self._session(variant, target)
            values = variant.given(call, target)
            refuse_wrong_integers(session.ranges, values)
            loss = session.run(self._feeds(values), self._store, variant.tensor)
        finally:
            self.__dict__["_busy"] = False
        return loss

    def tensors(self) -> Any:
        """Returns what runtimes of schedules need; see `LocalNet.tensors`."""
        made = super().tensors()
        made.refresh = self._come_home
        return made

    def _session(self, variant: Variant, target: Any) -> Session:
        sessions: dict[int, Session] = self._sessions
        if id(variant) not in sessions:
            with torch.no_grad():
                self._store.release()
            device = next(iter(self.model.parameters())).device
            installed(device)  # refuses before anything is made
            program = self.compilations.compiler.session(self, variant, target)
            asked = ranges(variant.compiled.graph.programs["step"])
            sessions[id(variant)] = Session(program, asked, device)
        return sessions[id(variant)]

    def _feeds(self, values: Mapping[Slot, Any]) -> dict[Slot, torch.Tensor]:
        assert self.optimizer is not None
        optimizer = self.optimizer
        given = {slot: value.contiguous() for slot, value in values.items() if isinstance(value, torch.Tensor)}
        feedback_lr = optimizer.lr if optimizer.feedback_lr is None else optimizer.feedback_lr
        given[Slot("scalar", "lr")] = _number(float(optimizer.lr))
        given[Slot("scalar", "feedback_lr")] = _number(float(feedback_lr))
        given[STEP] = torch.tensor(self.state.advance() - 1)
        given[SEED] = _number(self.feedback.seed)
        return given

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model's forward in torch; see `LocalNet.forward`."""
        self._come_home()
        return super().forward(*args, **kwargs)

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """Yields names and modules, one level deep."""
        self._come_home()
        return super().named_children()

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        """Yields names and modules."""
        self._come_home()
        return super().named_modules(*args, **kwargs)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields names and parameters."""
        self._come_home()
        return super().named_parameters(*args, **kwargs)

    def named_buffers(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields names and buffers."""
        self._come_home()
        return super().named_buffers(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the state, feedback and optimizer included."""
        self._come_home()
        return super().state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads what `state_dict` returned; see `LocalNet.load_state_dict`."""
        self._come_home()
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._come_home()
        self._sessions.clear()  # they are bound to a device and to types of numbers
        return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SessionNet":
        self._come_home()
        sessions = self.__dict__.pop("_sessions")  # the copy opens its own
        try:
            made = super().__deepcopy__(memo)
        finally:
            self.__dict__["_sessions"] = sessions
        assert isinstance(made, SessionNet)
        made.__dict__["_sessions"] = {}
        return made

    def __getstate__(self) -> dict[str, Any]:
        self._come_home()
        return super().__getstate__() | {"_store": StateStore(), "_sessions": {}, "_busy": False}


@functools.lru_cache(maxsize=64, typed=True)
def _number(value: float | int) -> torch.Tensor:
    """A number as the tensor that a session reads; the same one every time, so that it is bound once."""
    return torch.tensor(value, dtype=torch.float32 if isinstance(value, float) else torch.int64)
