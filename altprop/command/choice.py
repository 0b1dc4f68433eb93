"""The options by which commands choose a model, its example inputs, a rule and regions: one list for all of them."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import altprop
from altprop.command import options
from altprop.command.example import Example, chosen, compile_example, make_example


@dataclass(frozen=True)
class Choice:
    """What the user chose; the fields are the options, in the order in which help lists them."""

    model: options.Model
    rule: options.Rule = None
    regions: options.Regions = None
    input_shape: options.InputShape = None
    input_type: options.InputType = "float32"
    data: options.Data = None
    batch: options.Batch = 8
    hidden: options.Hidden = None
    activation: options.Activation = None
    model_option: options.ModelOption = None
    seed: options.Seed = None
    debug: options.Debug = False

    def compile(self, plan: Any = None, **more: Any) -> "altprop.LocalNet":
        """Build the model and compile it; `more` goes to the compiler."""
        example = self.example()
        return compile_example(example, rule=self.rule, plan=plan, regions=self.regions, seed=self.seed, **more)

    def options(self, plan: Any = None) -> dict[str, Any]:
        """What was chosen, as arguments of `altprop.compile`."""
        return chosen(rule=self.rule, plan=plan, regions=self.regions, seed=self.seed)

    def example(self) -> Example:
        """Build the model and inputs for it."""
        return make_example(
            self.model,
            shapes=self.input_shape,
            data=self.data,
            batch=self.batch,
            dtype=self.input_type,
            hidden=self.hidden,
            activation=self.activation,
            options=self.model_option,
            seed=self.seed,
        )


def with_choice(*, batch: int = 8) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, whose first argument is a `Choice`, the options that one is made of.

    Args:
        batch: the default batch of the command's example inputs.
    """
    shared = [field.name for field in fields(Choice)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            choice = Choice(**{name: given.pop(name) for name in shared})
            command(choice, **given)

        own = list(inspect.signature(command).parameters.values())[1:]
        parameters = [*_parameters(batch)[:3], *own, *_parameters(batch)[3:]]
        # What typer reads: every option is a keyword, so that their order is free. Python lets any function have a
        # signature of its own, and types of functions do not know that.
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        )
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def _parameters(batch: int) -> list[inspect.Parameter]:
    """The parameters of a choice, with a command's own batch."""
    found = list(inspect.signature(Choice).parameters.values())
    return [one.replace(default=batch) if one.name == "batch" else one for one in found]
