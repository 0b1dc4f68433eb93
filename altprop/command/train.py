"""`altprop train`: train a model by a learning rule."""

from pathlib import Path
from typing import Annotated, Any

import typer

from altprop.command import options
from altprop.command.audit_command import run_audit
from altprop.command.options import parse_pairs, parse_regions, parse_widths
from altprop.command.progress import ProgressReporter
from altprop.command.screen import CommandError, note, results
from altprop.counted import counted
from altprop.data import available as data_sets
from altprop.data import load
from altprop.rules.registry import DEFAULT
from altprop.training import Result, RunConfig, make_config
from altprop.training import train as train_run
from altprop.training.folder import RunFolder, resume_config


def train(
    named: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="The model, as --model says it.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML file with any of these settings; flags win.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Where the run goes.", show_default="runs/DATA-MODEL-RULE"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in the folder, exactly as if it had not stopped."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    data: Annotated[
        str | None, typer.Option(help=f"Data set: {', '.join(data_sets())}.", show_default="digits")
    ] = None,
    data_dir: options.DataDir = None,
    validation: Annotated[
        int | None, typer.Option(help="Samples held out to watch the run.", show_default="the set's own")
    ] = None,
    subset: Annotated[int | None, typer.Option(help="Train on so many samples only.", show_default="all")] = None,
    augment: Annotated[
        bool | None, typer.Option(help="Shift and mirror the training images at random.", show_default="no")
    ] = None,
    model: Annotated[str | None, typer.Option(help=options.MODEL_HELP, show_default="mlp")] = None,
    hidden: options.Hidden = None,
    activation: options.Activation = None,
    model_option: options.ModelOption = None,
    rule: options.Rule = None,
    plan: options.Plan = None,
    regions: options.Regions = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help="sgd, adam, adamw or muon, whose rate is as adamw's.", show_default="the rule's own"),
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.", show_default="the rule's own")] = None,
    lr_schedule: Annotated[
        str | None, typer.Option(help="constant, cosine or step.", show_default="the rule's own")
    ] = None,
    momentum: Annotated[float | None, typer.Option(help="Momentum of sgd.", show_default="0")] = None,
    nesterov: Annotated[bool | None, typer.Option(help="Nesterov's form of momentum.", show_default="no")] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Weight decay.", show_default="the optimizer's own")
    ] = None,
    feedback_lr: Annotated[
        float | None, typer.Option(help="Learning rate of learned feedback.", show_default="the rule's own, or --lr")
    ] = None,
    output_rate: Annotated[
        float | None,
        typer.Option(help="Times --lr, the output layer's rate.", show_default="the rule's own, or 1"),
    ] = None,
    feedback_lr_decay: Annotated[
        float | None, typer.Option(help="Factor on the feedback's rate after every epoch.", show_default="1")
    ] = None,
    feedback_weight_decay: Annotated[
        float | None,
        typer.Option(help="Weight decay of learned feedback.", show_default="the rule's own, or --weight-decay"),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples a step.", show_default="64")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.", show_default="10")] = None,
    seed: options.Seed = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", show_default="torch's own")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...", show_default="cpu")] = None,
    backend: Annotated[str | None, typer.Option(help="eager or inductor.", show_default="eager")] = None,
    tensorboard: Annotated[
        bool | None, typer.Option(help="Write TensorBoard's event files.", show_default="yes")
    ] = None,
    reductions: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS",
            help="Measure at every so many steps what each region's part of the step does to the loss.",
            show_default="never",
        ),
    ] = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Audit the trained net beside two controls; see 'altprop audit'.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Train a model by a learning rule.

    The run's folder gets its full configuration, the wiring plan, a table of how each parameter learns, a
    checkpoint after every epoch, CSV and TensorBoard logs, the learning curves and the trained model.

    Example: altprop train convnet --data digits --rule dfa --epochs 20 --out runs/digits
    """
    given = dict(locals())
    if resume and overwrite:
        raise CommandError("--resume continues a run and --overwrite replaces it; choose one")
    if named and model and named != model:
        raise CommandError(f"two models are named, {named} and --model {model}; name one")
    given["model"] = model or named
    flags = _flags(given)
    wanted = make_config(config, flags)
    folder = RunFolder(Path(wanted.out or _default_folder(wanted)).expanduser())
    saved = resume_config(folder, config, flags) if resume else None
    if resume and saved is None:
        note(f"{folder.path} holds no run yet: starting with the first epoch")
    with ProgressReporter() as reporter:
        result = train_run(saved or wanted, folder.path, resume=resume, overwrite=overwrite, reporter=reporter)
    _report(result, folder)
    if audit:
        _audit(result, saved or wanted, folder)


def _flags(given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the command line gave, as RunConfig names and types them."""
    flags = {key: value for key, value in given.items() if key in RunConfig.model_fields and value is not None}
    if "hidden" in flags:
        flags["hidden"] = parse_widths(flags["hidden"])
    if "regions" in flags:
        flags["regions"] = parse_regions(flags["regions"])
    if given["model_option"]:
        flags["model_options"] = parse_pairs(given["model_option"])
    return flags


def _default_folder(config: RunConfig) -> str:
    """Name a run by what distinguishes it most."""
    model = Path(config.model).name if ":" in config.model else config.model
    rule = "default" if config.rule == DEFAULT else config.rule_text
    parts = (config.data, model, rule)
    return f"runs/{'-'.join(''.join(c if c.isalnum() else '_' for c in part) for part in parts)}"


def _report(result: Result, folder: RunFolder) -> None:
    numbers = result.summary()
    results.print(
        f"test accuracy {100 * numbers['test_accuracy']:.2f} %, error {numbers['test_error_percent']:.2f} %, "
        f"loss {numbers['test_loss']:.4f}; {counted(numbers['epochs'], 'epoch')} in {numbers['seconds']:.1f} s; "
        f"everything is in {folder.path}"
    )


def _audit(result: Result, config: RunConfig, folder: RunFolder) -> None:
    """Audit the run and write it into its folder; the run is done and keeps its status."""
    data = load(config.data, config.data_dir, validation=config.validation, subset=config.subset)
    made = run_audit(config, data, result.net)
    results.print(str(made))
    note(f"written to {made.to_json(folder.path / 'audit.json')}")
