"""What the published tables have: their rows as settings of `altprop train`, and their figures as printed there."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODELS = Path(__file__).parent / "published_models.py"


@dataclasses.dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        label: its name.
        settings: of `altprop train`, where they differ from the table's.
        theirs: test errors in per cent as published, by data set.
    """

    label: str
    settings: Mapping[str, Any]
    theirs: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        source: the paper and table.
        data: data sets.
        epochs: how long each run is.
        samples: of the training split.
        settings: of `altprop train`, for all rows.
        rows: the rows.
        subset: samples of the training split that are used; None means all.
        moments: epochs behind which the net is measured; 0 is before training.
        found: what our runs say of it.
        curves: the file in `docs` that draws how the rows learned; empty for none.
    """

    source: str
    data: tuple[str, ...]
    epochs: int
    samples: int
    settings: Mapping[str, Any]
    rows: tuple[Row, ...]
    subset: int | None = None
    moments: tuple[int, ...] = ()
    found: str = ""
    curves: str = ""


def _errors(mnist: float, fashion: float) -> dict[str, float]:
    return {"mnist": mnist, "fashion-mnist": fashion}


PAPER = "Ororbia, Mali, Kifer and Giles 2023"
DEEP = {"model": "mlp", "hidden": [256] * 5, "batch_size": 50}
EDGES = {"rule": "reclra(scale=0.1, units='beta')", "plan": "edges"}
TABLE_1 = (
    Row("bp", {"rule": "bp"}, _errors(1.48, 12.98)),
    Row("fa", {"rule": "fa"}, _errors(1.85, 12.89)),
    Row("dfa", {"rule": "dfa"}, _errors(2.75, 13.09)),
    Row("tp", {"rule": "tp"}, _errors(1.86, 19.66)),
    Row("lra_e", {"rule": "lra_e"}, _errors(1.97, 12.31)),
    Row("wm", {"rule": "wm"}, _errors(1.99, 12.49)),
    Row("ep", {"rule": "ep"}, _errors(9.21, 20.97)),
    Row("reclra, tanh", {"rule": "reclra"}, _errors(1.82, 11.87)),
    Row("reclra, relu", {"rule": "reclra", "activation": "relu"}, _errors(2.26, 14.13)),
    Row("reclra, elu", {"rule": "reclra", "activation": "elu"}, _errors(1.93, 13.17)),
    # The paper does not print how its MLP is wired; straight from the output, these two fall behind at any rate.
    Row("reclra, relu, chain", {"rule": "reclra", "activation": "relu", "plan": "chain"}, _errors(2.26, 14.13)),
    Row("reclra, elu, chain", {"rule": "reclra", "activation": "elu", "plan": "chain"}, _errors(1.93, 13.17)),
    Row(
        "reclra, sign",
        {"rule": "reclra", "model": f"{MODELS}:SignNet", "hidden": None},
        _errors(2.33, 14.88),
    ),
    Row("default, tanh", EDGES),
    Row("default, tanh, decay 0.01", EDGES | {"weight_decay": 0.01}),
    Row("output layer alone", {"rule": {"fc6": "bp", "*": "frozen"}}),
)
FIGURE_2 = tuple(
    Row(f"{label}, {activation}", {**rule, "activation": activation})
    for activation in ("sigmoid", "tanh")
    for label, rule in (("bp", {"rule": "bp"}), ("reclra", {"rule": "reclra"}), ("default", EDGES))
)
SLOW, USUAL = {"lr": 0.0015}, {"lr": 0.003}
BLOCKS = [f"stage{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
ENDS = {f"{block}.conv2": "local_loss(beta=0.0)" for block in BLOCKS[:-1]}
RESIDUAL = (
    Row("bp", {"rule": "bp"} | SLOW, {"cifar10": 5.94}),
    Row("default", EDGES | SLOW, {"cifar10": 6.42}),
    Row("from the weights", {"rule": "reclra(beta=0.01, start='weights', units='beta')", "plan": "edges"} | SLOW),
    Row("blocks", {"rule": "reclra(units='beta', kind='channel')", "plan": "blocks"} | USUAL),
    Row("blocks, edges inside", {"rule": EDGES["rule"], "plan": "blocks(inside='edges')"} | USUAL),
    Row(
        "blocks, edges inside, ends next",
        {"rule": EDGES["rule"], "plan": "blocks(inside='edges', ends='next')"} | USUAL,
    ),
    Row("direct", {"rule": "reclra(kind='channel')", "plan": "direct"} | USUAL),
    Row("kp", {"rule": "kp", "lr": 0.002}),
    Row("wm", {"rule": "wm", "lr": 0.001}, {"cifar10": 7.04}),
    Row("dkp", {"rule": "dkp(kind='channel')"} | USUAL),
    Row("modular", {"rule": "modular", "lr": 0.002}),
    Row("classifiers at block ends", {"rule": ENDS | {"*": "bp"}} | SLOW),
    Row("classifiers at block ends, modular", {"rule": ENDS | {"*": "modular"}, "lr": 0.002}),
    Row("output layer alone", {"rule": {"fc": "bp", "*": "frozen"}, "lr": 0.01}),
    Row("shallow head", {"rule": "bp", "model": f"{MODELS}:Shallow"} | SLOW),
)


def _sought() -> tuple[Row, ...]:
    """Rates and the output layer's share of them, as they were tried for some rows of the residual nets."""
    tried = {
        "bp": ((0.0015, 1), (0.004, 1)),
        "default": ((0.0015, 1), (0.0015, 10), (0.004, 1), (0.004, 3)),
        "from the weights": ((0.0015, 1),),
        "blocks": ((0.003, 1),),
        "blocks, edges inside": ((0.003, 1), (0.003, 3)),
        "blocks, edges inside, ends next": ((0.0015, 1), (0.004, 1)),
        "classifiers at block ends": ((0.0015, 1),),
        "classifiers at block ends, modular": ((0.002, 1),),
    }
    rows = {row.label: row for row in RESIDUAL}
    sought = [
        Row(f"{label}, lr={lr}, output {rate}", {**rows[label].settings, "lr": lr, "output_rate": rate})
        for label, pairs in tried.items()
        for lr, rate in pairs
    ]
    decays = {"lr": 0.0015, "output_rate": 10, "weight_decay": 0.5}
    return (*sought, Row("default, lr=0.0015, output 10, decay 0.5", {**EDGES, **decays}))


RESNET = {"model": "resnet20", "augment": True, "batch_size": 64, "optimizer": "adamw", "lr_schedule": "cosine"}
# All rows decay alike, so that rules are compared, and not the decay that a recipe has.
RESNET |= {"weight_decay": 0.01}

TABLES: dict[str, Table] = {
    "rec-LRA, Table 1": Table(
        f"{PAPER}, Table 1: 784 - 5 x 256 - 10, means of ten trials",
        ("mnist", "fashion-mnist"),
        30,
        55000,
        DEEP,
        TABLE_1,
        found="The paper does not print how its net is wired. Here errors come straight from the output. Only in the "
        "rows called chain does each region hear from the next. For rectified units that made the difference: in a "
        "chain, and after the thirty epochs of the paper, their errors are those of the paper or a little above. All "
        "rows are by one seed. `fa`, `tp` and rec-LRA straight from the output stay behind the paper, with rectified "
        "units and signs by far, and so does `bp` on MNIST. `dfa`, `lra_e` and `wm` are below its errors. The default "
        "is far behind here. Its recipe was sought in short trainings, and much of what it lacks is its decay: with "
        "0.01 in the place of 0.4 it comes nearer.",
    ),
    "rec-LRA, Figure 2": Table(
        f"{PAPER}, Figure 2: 784 - 8 x 256 - 10, sigmoid and tanh",
        ("mnist", "fashion-mnist"),
        100,
        55000,
        {**DEEP, "hidden": [256] * 8},
        FIGURE_2,
    ),
    "residual nets": Table(
        f"{PAPER}, Table 2 (a): a ResNet-18 there for about a hundred epochs, a ResNet-20 here, at a decay of 0.01",
        ("cifar10",),
        10,
        45000,
        RESNET,
        RESIDUAL,
        moments=(0, 1, 3, 6, 10),
        curves="curves.svg",
    ),
    "residual nets, thirty epochs": Table(
        "Rows of the table above for thirty epochs: backpropagation, the default, and two rules of parallel updates",
        ("cifar10",),
        30,
        45000,
        RESNET,
        tuple(row for row in RESIDUAL if row.label in ("bp", "default", "dkp", "modular")),
        moments=(0, 1, 5, 15, 30),
        found="The default begins with random feedback. After thirty epochs the mean of its two seeds is half a "
        "point behind that of `bp`; after ten it was one and a half behind. Its errors go from layer to layer, as "
        "those of `bp` do. Rules of parallel updates were not trained as long yet.",
        curves="curves_thirty.svg",
    ),
    "residual nets, measured": Table(
        "Short runs of rows above, whose nets were measured as they learned; the table's own length is 10,000 images",
        ("cifar10",),
        4,
        45000,
        RESNET,
        tuple(row for row in RESIDUAL if row.label in ("bp", "default", "direct")),
        subset=10000,
        moments=(0, 1, 2, 3, 4),
    ),
    "residual nets, settings": Table(
        "Where the settings above were sought: 15,000 images, three epochs, a decay of 0.01 unless a row says another",
        ("cifar10",),
        3,
        45000,
        RESNET,
        _sought(),
        subset=15000,
    ),
}
