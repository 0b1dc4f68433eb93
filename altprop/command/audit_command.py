"""`altprop audit`: does a rule teach the hidden layers of a model?"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from altprop.auditing import Audit
from altprop.command import options
from altprop.command.options import parse_pairs, parse_regions, parse_widths
from altprop.command.screen import CommandError, note, notes, results
from altprop.data import DataSet, load
from altprop.runtime.net import LocalNet
from altprop.training import RunConfig, make_config
from altprop.training.audited import audit_run


def audit(
    model: options.Model,
    data: Annotated[str | None, typer.Option(help="Data set.", show_default="digits")] = None,
    data_dir: options.DataDir = None,
    subset: Annotated[int | None, typer.Option(help="Train on so many samples only.", show_default="all")] = None,
    rule: options.Rule = None,
    plan: options.Plan = None,
    regions: options.Regions = None,
    hidden: options.Hidden = None,
    activation: options.Activation = None,
    model_option: options.ModelOption = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.", show_default="the rule's own")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data, of each run.")] = 5,
    seed: options.Seed = None,
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the audit as JSON.")] = None,
    debug: options.Debug = False,
) -> None:
    """Train a model, and say whether its hidden layers learn.

    Two controls are trained beside it: the same model of which the output layer alone learns, and one layer from the
    input to the output. The status is 1 if a check failed.

    Example: altprop audit convnet --data digits --rule dfa --json audit.json
    """
    given: dict[str, Any] = {
        "model": model,
        "data": data,
        "data_dir": data_dir,
        "subset": subset,
        "rule": rule,
        "plan": plan,
        "regions": None if regions is None else parse_regions(regions),
        "hidden": None if hidden is None else parse_widths(hidden),
        "activation": activation,
        "model_options": parse_pairs(model_option or []),
        "lr": lr,
        "epochs": epochs,
        "seed": seed,
    }
    config = make_config(flags={key: value for key, value in given.items() if value is not None})
    made = run_audit(config, load(config.data, config.data_dir, subset=config.subset))
    results.print(str(made))
    if out is not None:
        note(f"written to {made.to_json(out)}")
    if not made.passed:
        raise CommandError(f"the audit failed: {', '.join(f.check for f in made.findings if f.passed is False)}")


def run_audit(config: RunConfig, data: DataSet, net: LocalNet | None = None) -> Audit:
    """Audits with a bar for each net that is trained."""
    steps = config.epochs * -(-len(data.train) // config.batch_size)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        tasks = {}

        def stepped(what: str) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(f"audit: {what}", total=steps)
            progress.advance(tasks[what])

        return audit_run(config, data, net, stepped)
