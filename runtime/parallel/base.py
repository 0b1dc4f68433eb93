"""What all runtimes of schedules share: cutting a batch into micro-batches, the optimizer's numbers, the loss."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from altprop.ir.devices import kind_of
from altprop.ir.errors import ScheduleError
from altprop.ir.schedule import DevicePrograms, Lowered, location, residents
from altprop.ir.structures import structure_of
from altprop.ir.torch_private import pytree
from altprop.ir.values import SCHEDULE, ValueName
from altprop.runtime.call import Call
from altprop.runtime.parallel.net_tensors import NetTensors
from altprop.runtime.parallel.sharded_checkpoint import load, save


class Runtime:
    """Runs training steps by a schedule.

    Attributes:
        lowered: the schedule and what its tasks run.
        net: tensors of the net.
    """

    def __init__(self, lowered: Lowered, net: NetTensors) -> None:
        self.lowered, self.net = lowered, net

    @property
    def schedule(self) -> DevicePrograms:
        """The schedule."""
        return self.lowered.schedule

    def step(self, inputs: Any, target: Any) -> torch.Tensor | None:
        """Runs one training step.

        Args:
            inputs: as in `net.step`, with exactly as many samples as the schedule was made for.
            target: the loss's target.

        Returns:
            The loss before the step, a scalar; None in a process that does not make it.

        Raises:
            ScheduleError: the batch is not that of the schedule.
        """
        given = self._given(inputs, target)
        scalars = self.net.optimizer.scalars(self.net.state.advance())
        with torch.no_grad(), self._uncast():
            loss = self._run(given, scalars)
        if loss is not None:
            self.net.diverging.look(self.net.remedy, loss)
        return loss

    def run_named(self, named: Mapping[str, Any], scalars: Mapping[str, float]) -> torch.Tensor | None:
        """Runs one step from what a caller gives by name, `kind:name`; nothing is drawn, and no step counted.

        Args:
            named: inputs and targets of a whole batch.
            scalars: the optimizer's numbers.

        Returns:
            As `step`.
        """
        return self._run(self._cut(named), scalars)

    def _uncast(self) -> contextlib.AbstractContextManager[Any]:
        """Ends autocast; its casts are in the programs."""
        kinds = dict.fromkeys(["cpu", *map(kind_of, self.schedule.devices)])
        stack = contextlib.ExitStack()
        for kind in kinds:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        return stack

    @property
    def held(self) -> frozenset[str]:
        """Values that this process holds between steps, `kind:name`."""
        devices = range(len(self.schedule.programs))
        return frozenset(name for device in devices for name in residents(self.schedule, device))

    def save(self, folder: str | Path) -> Path:
        """Writes a checkpoint of the run; in a distributed run all ranks call it. Returns its folder.

        The process has the folder from then on until it ends; another run is refused it.

        Raises:
            ScheduleError: a rank cannot write, ended or hangs, or another run has the folder; earlier checkpoints stay.
        """
        return save(folder, self.net, self.held)

    def resume(self, folder: str | Path) -> int:
        """Loads the last whole checkpoint that `save` wrote, with any runtime on any number of devices.

        One that was damaged since is passed over with a warning.

        Returns:
            The number of steps that were done; 0 where there is no checkpoint.

        Raises:
            ScheduleError: the checkpoint is of another net, or there are some of which none is whole.
        """
        return load(folder, self.net, self.held)

    def _run(self, given: Mapping[str, Any], scalars: Mapping[str, float]) -> torch.Tensor | None:
        raise NotImplementedError

    def _given(self, inputs: Any, target: Any) -> dict[str, Any]:
        """All inputs, targets and noise, cut into micro-batches."""
        return self._cut(self._named_inputs(inputs) | self._named_targets(target)) | self._noise()

    def _named_inputs(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, dict):
            inputs = {name: inputs[name] for name in self.net.keywords}
        call = Call.from_inputs(inputs)
        if self.net.structure not in (None, call.structure):
            raise ScheduleError(
                "the inputs are not built as those of the capture: give the same keys in the same order."
            )
        leaves = call.leaves
        return {
            SCHEDULE.write(ValueName("input", name)): leaf for name, leaf in zip(self.net.inputs, leaves, strict=True)
        }

    def _named_targets(self, target: Any) -> dict[str, Any]:
        if structure_of(target) != self.lowered.target:
            raise ScheduleError(
                "the target is not built as the example of net.schedule(target=): give the same keys in the same order."
            )
        tensors = [leaf for leaf in pytree.tree_leaves(target) if isinstance(leaf, torch.Tensor)]
        return {SCHEDULE.write(ValueName("target", str(index))): leaf for index, leaf in enumerate(tensors)}

    def _noise(self) -> dict[str, torch.Tensor]:
        """The numbers that `net.step` would draw, cut where they are a batch's. Every process draws all of them."""
        count = self.schedule.microbatches
        forms = [form for form in self.net.noise_forms if location(form[0]) in self.schedule.forms]
        drawn = self.net.noise.draw(forms, self.schedule.batch, torch.device("cpu"))
        found: dict[str, torch.Tensor] = {}
        for slot, _, sizes in forms:
            of_batch = bool(sizes) and sizes[0][0] > 0
            parts = drawn[slot].chunk(count) if of_batch else [drawn[slot]] * count
            name = ValueName.of(slot)
            found |= {SCHEDULE.write(replace(name, micro=index)): part for index, part in enumerate(parts)}
        return found

    def _cut(self, named: Mapping[str, Any]) -> dict[str, Any]:
        count = self.schedule.microbatches
        size = self.schedule.batch // count
        found: dict[str, Any] = {}
        for name, leaf in named.items():
            form = self.schedule.forms.get(name)
            if form is None:
                continue
            whole = (self.schedule.batch, *form.shape[1:])
            if tuple(leaf.shape) == whole and form.shape[:1] == (size,):
                parts = leaf.split(size)
            elif tuple(leaf.shape) == form.shape and not (form.shape and form.shape[0] == size):
                parts = [leaf] * count
            else:
                raise ScheduleError(
                    f"{name.replace(':', ' ')} has shape {tuple(leaf.shape)}; the schedule was made for {whole}: "
                    f"give batches of {self.schedule.batch}, or make a schedule with batch={leaf.shape[0]}."
                )
            found |= {f"{name}@{index}": part for index, part in enumerate(parts)}
        return found

    def _loss(self, losses: list[torch.Tensor]) -> torch.Tensor:
        """The step's loss: of means over micro-batches of one size, the mean."""
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return total if self.lowered.share == 1.0 else total * self.lowered.share


Factory = Callable[[Lowered, NetTensors], Runtime]
