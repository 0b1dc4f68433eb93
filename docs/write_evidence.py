"""Writes `docs/evidence.md` from the results that the benchmarks kept.

python benchmarks/default_rule.py --data-dir DIR --resume
python benchmarks/published.py --data-dir DIR --resume
python benchmarks/starts.py --resume
python benchmarks/survey.py --data-dir DIR --resume
python benchmarks/audits.py --data-dir DIR --resume
python benchmarks/kept_audits.py --data-dir DIR --resume
python benchmarks/wirings.py
python tests/run_norms.py --data-dir DIR --resume
python docs/write_evidence.py
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent / "benchmarks"), str(DOCS.parent / "tests")]

import audits  # noqa: E402
import curves  # noqa: E402
import default_rule  # noqa: E402
import dkp_table  # noqa: E402
import kept_audits  # noqa: E402
import kept_runs  # noqa: E402
import moments  # noqa: E402
import published  # noqa: E402
import run_norms  # noqa: E402
import starts  # noqa: E402
import survey  # noqa: E402
import wirings  # noqa: E402
from published_tables import TABLES, Table  # noqa: E402
from survey_rows import STUDIES  # noqa: E402

HEAD = """# Evidence

This page says what the rules reach, beside what was published. `docs/write_evidence.py` writes it from
`benchmarks/results`, and `make tables` says what it would take to train everything anew.

A cell is the mean over seeds. Brackets say how far the best and the worst seed are apart. Where two numbers stand in
them, the first is the number of seeds.

Runs are as long as the tables say. Most are far shorter than those of the papers. So look at the order of the figures:
they cannot be equal to the published ones.
"""
DEFAULT = """
## The default, beside backpropagation

`benchmarks/default_rule.py`: ten small tasks, Adam at 1e-3, the same epochs for all. Test accuracy in per cent;
for texts the loss in nats, where less is better.

All but `bp`, *one rate for all* and *from the weights* take the groups of `net.param_groups()`: under the default an
output layer that learns ten times as fast, and a decay of 0.4.

- *No decay* and *decay 0.5* have these groups with another decay.
- *Decay 0.5, of the output layer 0.05* has an output layer that shrinks no faster than all else, though it learns ten
  times as fast.
- *No decay, scale 0.03* draws the feedback at 0.03 of its usual size, where the default takes 0.1.
- *From the weights* is `start='weights'` along the same edges. The feedback E starts as the weights and stays the
  weights, so this is backpropagation's pathway.
- *Direct* is `plan="direct"`.
"""
ANGLES = """
### Why the default decays

The table has the mean angle between feedback and weights behind training, in degrees. E gets the updates of the
weights. So after some steps `W = W0 + dW` and `E = 0.1 E0 + dW`. In a short training `dW` is small beside `W0`, and E
has nothing of `W0`. A decay of both takes `W0` away, and E comes nearer to W wherever both were measured.

That is not the whole of it. Where the output layer shrinks no faster than the rest, the angles are nearly as small, and
yet the transformer gains little. Most of its gain comes from an output layer that is kept small. Why that helps was not
found out. On the MLP the default is two points behind `bp` without a decay, and further behind with a larger one. So
the default's decay is only as large as the transformer needs.

The ConvMixer shows where the default falls behind. It has thirteen convolutions in a row, six of them depthwise, with a
batch norm behind each. After twelve epochs the default is 8 points behind `bp`, and 14 without its decay. What is slow
there is the random start: from the weights the same rule is as good as `bp`.

The SE-ResNet has another trouble, under `bp` too: from one epoch to the next its accuracy swings by several points,
since the running averages of its batch norms lag behind the batches. With the decay its seeds are closer together. On
the LSTM the default is better without the decay; with it, it is still better than `bp`.
"""
SCALES = """
### How large the feedback starts

The default draws E at 0.1 of its usual size. These rows draw it larger, with all else as it is. Where a model has norms
or shortcuts, 0.1 is the best of the three, or nearly so. They hold the errors up: the smaller E starts, the sooner it
is what the weights have learned.

The eight convolutions in a row have neither. There each layer makes the error smaller, and at 0.1 the lowest layers
hear of nothing for long. One seed of three stays at chance. So for a deep model without norms and without shortcuts
take `altprop.compile(model, "reclra(scale=0.3, units='beta')", plan="edges")`.
"""
NORMS = """
## Norms in front of layers

`tests/run_norms.py`: the transformer of the first table by Adam at 1e-3 inside the program, one epoch, three seeds; the
loss in nats, its mean and its lowest and highest. A norm in front of a layer belongs to that layer's region. It learns
from sums over the batch, which spares it the layer's input gradient ([how](rules.md)). Two other ways stand beside it:
the same cut with that input gradient, as it was before, and a cut in which each norm is a region by itself and hears
messages of its own.

The two ways of the first cut are one equation. They differ by rounding, which changes the second or third figure behind
the point after a thousand steps. As regions by themselves, norms learn as well under the default. Under `dfa` the net
then ends at a little lower loss: it has five more regions that hear the output.
"""
STARTS = """
## Starts

`benchmarks/starts.py`: the angle between feedback and weights as training goes on, a small convolutional net on the
digits. What starts as the weights and gets their own updates stays the weights: that is backpropagation's pathway. Of
direct feedback the angle is that between `z B^T`, what it would predict, and the output that it hears from. Connections
over which errors go back exactly are no part of the mean; `exact` stands where there are no others. Under `modular`
the angle is that of the feedback inside modules.
"""
PRODUCTS = """
A start as the product of the weights wants dense layers on the way from the target to the source. So here is a net of
those: 64 - 3 x 64 tanh - 10, the same digits and the same optimizer. Product and mean Jacobian start alike here, since
tanh is nearly linear at first.
"""
AUDITS = """
## Audits

`benchmarks/audits.py`: [audits](audit.md) of the rules, each with the optimizer and the first rate of its recipe:
twelve epochs of the digits with the small convolutional net, three of 10,000 images of Fashion-MNIST with the MLP, one
seed. Rows of [rec-LRA's Table 1](#rec-lra-table-1) have the same MLP and four epochs of all images of Fashion-MNIST. A
net fails the check *shallow head* if it is less than a point better than one layer from the inputs to the outputs. On
10,000 images of Fashion-MNIST three epochs are too few for any of these nets to pass it, `bp` included, and four epochs
of all images are too few for `bp`. Controls learn by a row's own recipe: under the decay of the default the shallow
head comes to 76.9 there, under that of `bp` to 84.2, which the default does not pass.
"""
KEPT = """The rows of [residual nets](#residual-nets), behind all their epochs. The controls are two rows of that table,
each at the one rate that stands there. Where gradients are gone by the end of training, an audit looks at an earlier
moment; a kept run has none, and so `gradient floor` may fail.
"""
SURVEY = """
## Studies of direct feedback alignment

`benchmarks/survey.py`: what the survey of direct feedback alignment reports, run anew, and Muon beside Adam. The data
are {samples:,} images of Fashion-MNIST, the net 784 - 3 x 128 - 10 with tanh and the optimizer Adam at 1e-3, in batches
of 64, unless a row or a heading says otherwise. In brackets how far the best and the worst seed are apart. Angles, in
degrees, are between updates and the true gradient, the mean over hidden regions that learn.
"""
MOMENTS = """
What `net.measure` finds on 512 training images (`benchmarks/moments.py`): the mean over hidden layers, in degrees, of
the angle between update and gradient, then the same of the first layer alone; how fast the loss falls along the update,
where backpropagation has 1; and the angle between feedback and what it stands for.
"""
KOLEN_POLLACK = """
## Direct Kolen-Pollack, Tables 1 and 2

`benchmarks/dkp_table.py`, by the paper's settings. The figures stand [beside the rules](rules.md#two-convolutions). The
paper's are means of ten trials.
"""
WIRINGS = """
## What parallelism costs

`benchmarks/wirings.py`: accuracy of ResNet-20 on CIFAR-10 beside how fast several devices step it. The simulator says
how fast: nothing here ran on several devices. A figure of 1.5 means one and a half times as many steps a second as
backpropagation's pipeline 1F1B, at the same batch, each with the number of micro-batches that suits it best. Eight
steps are in a row, as in training: a device that is done with its part of a step goes on with the next one.

One would like a wiring that is one and a half times as fast as 1F1B, and within ten points of `bp`. There is none here.
`dkp` is fast enough, and 27 points behind. `modular` comes nearest in accuracy of those that are faster than 1F1B: it
is 12 points behind, and a third faster. Wirings between blocks stay further behind than either: the blocks' ends
hear the output, but over feedback that does not know what lies between. Feedback from the end of the next block
(`ends='next'`) was tried for three epochs; it is in the table of settings.

So were classifiers at the ends of blocks, by `local_loss(beta=0.0)`: then nothing comes back from later blocks. With
backpropagation inside a block, four devices are 1.27 times as fast as 1F1B, eight 1.34. With `modular` inside a block
it is 1.52 and 1.69. After three epochs the first is 9 points behind `bp`, the second 15.
"""


def default() -> list[str]:
    """The table of the default."""
    runs = kept_runs.read(default_rule.RESULTS)
    if not any("feedback_angle" in run for run in runs):
        return [DEFAULT, default_rule.table(runs)] if runs else []
    scales = [SCALES, default_rule.scales(runs)]
    return [DEFAULT, default_rule.table(runs), ANGLES, default_rule.angles(runs), *scales]


def norms() -> list[str]:
    """The table of norms in front of layers."""
    runs = kept_runs.read(run_norms.RESULTS)
    return [NORMS, run_norms.table(runs)] if runs else []


def beginnings() -> list[str]:
    """The tables of starts."""
    runs = kept_runs.read(starts.RESULTS)
    picture = "\n![Angles between feedback and weights over twelve epochs](starts.svg)"
    dense = starts.table(runs, starts.DENSE)
    return [STARTS, starts.table(runs), picture, PRODUCTS, dense] if runs else []


def kolen_pollack() -> list[str]:
    """What has run of the direct Kolen-Pollack paper's tables, and for how long."""
    runs = json.loads(dkp_table.RESULTS.read_text("utf-8"))["runs"]
    lines = ["| data | rows | epochs, seeds | epochs of the paper |", "|---|---|---|---|"]
    for data, epochs in dkp_table.EPOCHS.items():
        own = [run for run in runs if run["data"] == data]
        lengths = sorted({run["epochs"] for run in own})
        span = " to ".join(dict.fromkeys(str(lengths[at]) for at in (0, -1))) if own else "not run"
        seeds = f", {len({run['seed'] for run in own})}" if own else ""
        lines.append(f"| {data} | {len({run['row'] for run in own})} | {span}{seeds} | {epochs} |")
    return [KOLEN_POLLACK, "\n".join(lines)]


def parallelism() -> list[str]:
    """Accuracy over step time, a dot a wiring."""
    if not wirings.RESULTS.exists():
        return []
    rows = wirings.with_accuracy(json.loads(wirings.RESULTS.read_text("utf-8")), kept_runs.read(published.RESULTS))
    picture = "\n![Accuracy of each wiring over its speed on four and eight devices](wirings.svg)"
    return [WIRINGS, wirings.table(rows), picture] if rows else []


def audited() -> list[str]:
    """The audits, a table a task."""
    runs = kept_runs.read(audits.RESULTS)
    made = [AUDITS] if runs else []
    for task in audits.EPOCHS:
        if any(run["task"] == task for run in runs):
            made += [f"\n### Audits: {task}\n", audits.table(runs, task)]
    published_runs = kept_runs.read(published.RESULTS)
    own = [kept_audits.judged(run, published_runs) for run in runs if run["task"] == kept_audits.TASK]
    known = sorted((run for run in own if run is not None), key=lambda run: -run["scores"]["rule"])
    if known:
        head = f"\n### Audits: {kept_audits.TASK}\n\n{KEPT}"
        made += [head, audits.table(known, kept_audits.TASK)]
    return made


def studies() -> list[str]:
    """A section for each of the survey's studies that anything has run of."""
    runs = kept_runs.read(survey.RESULTS)
    made = [SURVEY.format(samples=10000)] if runs else []
    for name, study in STUDIES.items():
        if any(run["table"] == name for run in runs):
            made += [f"\n### {name.capitalize()}\n\n{study.about}\n", survey.table(name, runs)]
            made += [f"\n{study.found}"] if study.found else []
    for run in runs:
        if run["table"] == survey.MEMORY:
            made += [f"\n### Memory\n\n{survey.ABOUT_MEMORY}\n", survey.memory_table(run)]
    return made


def tables() -> list[str]:
    """A section for each published table that anything has run of."""
    runs = kept_runs.read(published.RESULTS)
    made = []
    for name, table in TABLES.items():
        own = [run for run in runs if run["table"] == name]
        if own:
            made += [f"\n## {_heading(name)}\n\n{table.source}.\n", _table(table, own), *_more(table, own)]
    return made


def _heading(name: str) -> str:
    """A name as a heading; names such as rec-LRA stay as they are."""
    return name.capitalize() if name.islower() else name


def _more(table: Table, runs: list[dict[str, Any]]) -> list[str]:
    """What stands below a table: its curves, and what was found by measuring the nets as they learned."""
    made = [f"\n{table.found}"] if table.found else []
    if table.curves:
        curves.plot(runs, DOCS / table.curves)
        made.append(f"\n![Validation accuracy of each row over epochs]({table.curves})")
    seen = [run for row in table.rows for run in runs if run["row"] == row.label and run.get("looks")]
    return [*made, MOMENTS, moments.table(seen)] if seen else made


def _table(table: Table, runs: list[dict[str, Any]]) -> str:
    data = [one for one in table.data if any(run["data"] == one for run in runs)]
    head = [f"{one}: ours, test error % | epochs, images | theirs" for one in data]
    lines = [f"| row | {' | '.join(head)} |", "|---" * (3 * len(data) + 1) + "|"]
    for row in table.rows:
        cells = [_cell([run for run in runs if (run["row"], run["data"]) == (row.label, one)]) for one in data]
        if any(ours for ours, _ in cells):
            theirs = [f"{row.theirs[one]:.2f}" if one in row.theirs else "" for one in data]
            parts = [f"{ours} | {size} | {other}" for (ours, size), other in zip(cells, theirs, strict=True)]
            lines.append(f"| `{row.label}` | {' | '.join(parts)} |")
    return "\n".join(lines)


def _cell(runs: list[dict[str, Any]]) -> tuple[str, str]:
    if not runs:
        return "", ""
    errors = [run["test_error"] for run in runs]
    spread = f" ({len(errors)}, {max(errors) - min(errors):.2f})" if len(errors) > 1 else ""
    return f"{statistics.mean(errors):.2f}{spread}", f"{runs[0]['epochs']}, {runs[0]['samples']}"


def main() -> None:
    """Writes the page."""
    text = "\n".join(
        [HEAD, *default(), *tables(), *kolen_pollack(), *parallelism(), *norms(), *beginnings(), *audited(), *studies()]
    )
    (DOCS / "evidence.md").write_text(text.replace("\n\n\n", "\n\n") + "\n", "utf-8")


if __name__ == "__main__":
    main()
