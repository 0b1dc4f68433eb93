"""A run's configuration: every choice that decides its numbers, as one checked value.

It comes from a YAML file, from the command line's flags, or both: flags win. The full configuration is saved
beside the run, so that the run can be resumed or repeated.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from altprop.ir.errors import RuleError
from altprop.ir.json_document import shown
from altprop.ir.plan import is_plan_file
from altprop.models import ModelError
from altprop.rules import Recipe, get
from altprop.rules.about import recipe_of_rule
from altprop.rules.registry import DEFAULT, DEFAULT_PLAN
from altprop.training.records import write_text
from altprop.training.run_errors import ConfigError
from altprop.training.user_rule import known_rule
from altprop.training.yaml_document import parse_yaml

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RunConfig(BaseModel):
    """What a run trains, on what, and how. `None` leaves a choice to the part that makes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = "digits"
    data_dir: str | None = None
    validation: Positive | None = None
    subset: Positive | None = None
    augment: bool = False

    model: str = "mlp"
    hidden: list[Positive] | None = None
    activation: str | None = None
    model_options: dict[str, Any] = {}

    rule: str | dict[str, str] | None = None  # filled in, unless the plan is a file, which says it
    plan: str | None = None
    regions: str | list[str] = "layer"

    # What is not given here comes from the rule's recipe, as long as the optimizer is the recipe's.
    optimizer: Literal["sgd", "adam", "adamw", "muon"] = "adamw"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    lr_schedule: Literal["constant", "cosine", "step"] = "constant"
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    nesterov: bool = False
    weight_decay: NotNegative | None = None
    feedback_lr: NotNegative | None = None
    output_rate: NotNegative | None = None
    feedback_lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    feedback_weight_decay: NotNegative | None = None

    batch_size: Positive = 64
    epochs: Positive = 10
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    threads: Positive | None = None
    device: str = "cpu"
    backend: str = "eager"
    tensorboard: bool = True
    reductions: Positive | None = None  # steps from one measurement of error reductions to the next
    out: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_recipe(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("rule") is None and not is_plan_file(values.get("plan")):
            values = values | {"rule": DEFAULT, "plan": values.get("plan") or DEFAULT_PLAN}
        settings = recipe_of(values.get("rule")).settings()
        if values.get("optimizer", settings["optimizer"]) != settings["optimizer"]:
            return values
        return settings | {key: value for key, value in values.items() if value is not None or key not in settings}

    @model_validator(mode="after")
    def _check_momentum(self) -> Self:
        if self.optimizer != "sgd" and (self.momentum is not None or self.nesterov):
            raise ValueError(f"momentum and nesterov belong to sgd; {self.optimizer} has its own")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    @property
    def rule_text(self) -> str:
        """The rule in a few characters, for names and headings."""
        return self.rule if isinstance(self.rule, str) else "mixed" if self.rule else "the rules of a plan"

    def save(self, path: Path) -> None:
        """Write the full configuration as YAML."""
        write_text(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def recipe_of(rule: Any) -> Recipe:
    """Return the recipe of a rule's text; the general one for several rules, or for none that is known."""
    try:
        return recipe_of_rule(get(known_rule(rule))) if isinstance(rule, str) else Recipe()
    except (RuleError, ModelError):  # compiling will say what is wrong with it
        return Recipe()


# What a resumed run may choose anew: none of these changes the numbers of the epochs it has in common.
FREE_ON_RESUME = frozenset({"epochs", "data_dir", "out", "tensorboard", "reductions"})


def make_config(file: Path | None = None, flags: Mapping[str, Any] | None = None) -> RunConfig:
    """Build a configuration from a YAML file and from flags, which win.

    Args:
        file: a YAML mapping with any of RunConfig's keys; None for no file.
        flags: the keys that the user gave on the command line.

    Raises:
        ConfigError: naming the key, if one is unknown or has a value that does not hold.
    """
    flags = flags or {}
    values = {**(read_yaml(file) if file else {}), **flags}
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error, file, flags)) from error


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML mapping."""
    try:
        content = parse_yaml(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no configuration file {file}") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is no text: byte {error.start} is not UTF-8") from error
    except ValueError as error:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold a mapping, one 'key: value' a line, not a {type(content).__name__}")
    odd = next((key for key in content if not isinstance(key, str)), None)
    if odd is not None:
        raise ConfigError(f"{file} has the key {shown(odd)}, which is no text")
    return content


def check_resumable(saved: RunConfig, wanted: RunConfig) -> None:
    """Refuse to resume with a choice that would change the numbers.

    Raises:
        ConfigError: naming the first key that differs.
    """
    for key in RunConfig.model_fields:
        before, now = getattr(saved, key), getattr(wanted, key)
        if before != now and key not in FREE_ON_RESUME:
            raise ConfigError(
                f"a resumed run keeps its configuration, but {key} was {before!r} and is now {now!r}; "
                "leave it out, or start a new run in another --out"
            )
    # A cosine or a step depends on the total.
    if saved.lr_schedule != "constant" and saved.epochs != wanted.epochs:
        raise ConfigError(
            f"the {saved.lr_schedule} schedule was made for {saved.epochs} epochs, not {wanted.epochs}; "
            "leave --epochs out, or start a new run in another --out"
        )


def _sentence(error: ValidationError, file: Path | None, flags: Mapping[str, Any]) -> str:
    """Say what is wrong with the first bad key, and where it came from."""
    problem = error.errors()[0]
    key = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, RunConfig.model_fields, n=1)
        advice = f"did you mean '{close[0]}'?" if close else f"the keys are {', '.join(RunConfig.model_fields)}"
        return f"{file or 'the configuration'} has an unknown key '{shown(key)[1:-1]}'; {advice}"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    where = f"--{key.replace('_', '-')}" if key in flags else f"{file}: {key}"
    return f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]}, not {repr(problem['input'])[:80]}"
