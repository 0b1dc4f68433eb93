"""The rows of the studies: those that the direct feedback alignment survey reports, and one of Muon."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from survey_models import ACTIVATIONS, NORMS, convolutional, dense
from torch import nn


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting.

    Attributes:
        label: its name.
        rule: as for `altprop.compile`.
        plan: the same.
        model: makes the model.
        optimizer: "adam", "sgd" with a momentum of 0.9, or "muon".
        lr: its rate.
        taught: epochs in which backpropagation teaches the whole model first; the fully connected layers begin anew.
        chance: whether the labels of the training images are drawn at random.
    """

    label: str
    rule: Any
    plan: str | None = None
    model: Callable[[], nn.Module] = dense
    optimizer: str = "adam"
    lr: float = 1e-3
    taught: int = 0
    chance: bool = False


@dataclasses.dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
        about: what the survey says, and what is varied here.
        rows: the settings.
        moments: epochs behind which accuracy and angles are looked at; the last is the length of a run.
        samples: of the training images.
        found: what our runs say of it.
    """

    about: str
    rows: tuple[Row, ...]
    moments: tuple[int, ...] = (1, 5)
    samples: int = 10000
    found: str = ""


def _sparse() -> tuple[Row, ...]:
    rows = [Row("bp", "bp"), Row("dense", "dfa(kind='dense')")]
    for count in (1, 2, 5, 10):
        rows.append(Row(f"{count} of 10 nonzero", f"dfa(kind='sparse', options={{'nonzeros': {count}}})"))
    for rank in (1, 2, 5, 10):
        rows.append(Row(f"full, rank {rank}", f"dfa(kind='low_rank', options={{'rank': {rank}}})"))
    for count, rank in ((1, 10), (2, 5), (5, 2)):
        options = f"{{'nonzeros': {count}, 'rank': {rank}}}"
        rows.append(Row(f"{count} of 10 nonzero, rank {rank}", f"dfa(kind='sparse', options={options})"))
    return tuple(rows)


def _binary() -> tuple[Row, ...]:
    rules = {"bp": "bp", "dfa": "dfa(kind='dense')", "binary": "dfa(kind='binary')"}
    return tuple(
        Row(f"{name}, SGD at {lr:g}", rule, optimizer="sgd", lr=lr)
        for lr in (1e-3, 5e-2)
        for name, rule in rules.items()
    )


def _head() -> tuple[Row, ...]:
    """What teaches the convolutions, and what the fully connected layers learn by."""
    net = convolutional
    held: Mapping[str, Any] = {"0": "frozen", "3": "frozen", "*": "bp"}
    return (
        Row("all by bp", "bp", model=net),
        Row("all by dfa", "dfa", model=net),
        Row("convolutions learn by bp, the rest by dfa", "dfa_head", model=net),
        Row("convolutions as drawn, the rest by bp", held, model=net),
        Row("convolutions as drawn, the rest by dfa", "dfa_head(features='frozen')", model=net),
        Row("convolutions as bp taught them, the rest by bp", held, model=net, taught=5),
        Row("convolutions as bp taught them, the rest by dfa", "dfa_head(features='frozen')", model=net, taught=5),
    )


def _modules() -> tuple[Row, ...]:
    net = partial(dense, 8)
    rows = [Row("bp", "bp", model=net), Row("dfa", "dfa", model=net)]
    rows += [Row(f"modules of {gap}", "modular", f"modules(gap={gap})", net) for gap in (1, 2, 4, 8)]
    return tuple(rows)


def _hybrid() -> tuple[Row, ...]:
    net = partial(dense, 8)
    rows = [Row("bp", "bp", model=net, optimizer="sgd", lr=5e-2), Row("dfa", "dfa", None, net, "sgd", 5e-2)]
    for p in (0.1, 0.3, 0.5):
        for gamma in (0.5, 1.0):
            rows.append(Row(f"p {p}, gamma {gamma}", f"hdfa(p={p}, gamma={gamma})", None, net, "sgd", 5e-2))
    return tuple(rows)


def _practice() -> tuple[Row, ...]:
    rates = {"adam": 1e-3, "sgd": 1e-2}
    rows = []
    for optimizer, lr in rates.items():
        for norm in NORMS:
            for activation in ACTIVATIONS:
                net = partial(dense, activation=activation, norm=norm)
                rows.append(Row(f"{activation}; {norm}; {optimizer}", "dfa", None, net, optimizer, lr))
    for share in (0.1, 0.5):
        rows.append(Row(f"tanh; dropout {share}; adam", "dfa", None, partial(dense, dropout=share)))
    return tuple(rows)


def _muon() -> tuple[Row, ...]:
    """Each rule by Adam and by Muon: dense layers without a norm and with one, and convolutions."""
    nets = {
        "dense, no norm": dense,
        "dense, layer norm": partial(dense, norm="layer norm"),
        "convolutions": convolutional,
    }
    rules = {
        **{"bp": ("bp", None), "fa": ("fa", None), "dfa": ("dfa", None)},
        **{"reclra": ("reclra(scale=0.1, units='beta')", "edges"), "reclra, direct": ("reclra", "direct")},
    }
    return tuple(
        Row(f"{name}; {net}; {optimizer}", rule, plan, model, optimizer)
        for net, model in nets.items()
        for name, (rule, plan) in rules.items()
        for optimizer in ("adam", "muon")
    )


_BP, _DFA = ("by bp", "bp"), ("by dfa", "dfa(kind='dense')")
STUDIES: Mapping[str, Study] = {
    "sparsity and rank": Study(
        "Crafton et al. 2019 (Figure 2 of the survey): the rank of feedback matters more than how sparse it is. "
        "Columns of dense feedback are drawn, or some of their numbers alone, or as a product of thin matrices.",
        _sparse(),
        found="The same was found here. With one number of ten, feedback is within about a point of dense. With a rank "
        "of 1 the net learns little, with 2 it stays far behind, and with 10, which is all that ten outputs "
        "allow, it is within a point.",
    ),
    "binary feedback": Study(
        "Han and Yoo 2019 (Figures 3 and 4): feedback of +1 and -1, at a small and at a large rate.",
        _binary(),
        found="At either rate it is as good as dense feedback. At the small one both are ahead of "
        "backpropagation, which has not come far in five epochs.",
    ),
    "convolutions and a head": Study(
        "Crafton et al. 2019 and Han and Yoo 2019 (Figures 6 and 7): DFA on the fully connected layers, over "
        "convolutions that are held or that learn by backpropagation. Theirs on MNIST: 99.1 % by either.",
        _head(),
        found="Over convolutions that backpropagation taught, DFA comes near backpropagation; by DFA on all layers "
        "the net does not. Over convolutions that stay as they were drawn, both end alike.",
    ),
    "modules": Study(
        "Han et al. 2020 (Figure 8): DFA inside modules, the exact gradient between them; eight hidden layers.",
        _modules(),
        found="As they say, the larger the modules, the further updates lie from the gradient. But accuracy "
        "does not fall with it: in these few epochs DFA on all layers learns faster than backpropagation.",
    ),
    "hybrid": Study(
        "Han et al. 2020 (Algorithm 1): a step is backpropagation's with probability p; eight hidden layers.",
        _hybrid(),
        found="On their deep convolutional nets the mixture lifts DFA to what backpropagation reaches. Here there is "
        "nothing to lift: DFA is ahead of backpropagation, and all mixtures end below DFA, some seeds far below.",
    ),
    "activation, norm, optimizer": Study(
        "Launay et al. 2019 (section 2.3): batch norm does not help alignment, leaky ReLU with a slope of -0.5 and "
        "tanh do; dropout should be small; Adam rather than SGD.",
        _practice(),
        found="As they say, tanh aligns best, much dropout hurts alignment, batch norm hurts that of tanh, and "
        "Adam is far better than SGD where rectified units have no norm. Unlike in their study, the leaky "
        "unit needs a norm as relu does. With a norm of either kind all units learn about alike.",
    ),
    "align, then memorise": Study(
        "Refinetti et al. 2020 (section 2.2.1): weights first align with the feedback, and then the net fits the data. "
        "2,000 images, with their labels and with labels drawn at random.",
        tuple(
            Row(f"{labels} {name}", rule, chance=labels == "labels by chance,")
            for labels in ("true labels,", "labels by chance,")
            for name, rule in (_BP, _DFA)
        ),
        moments=(0, 1, 2, 5, 10, 20, 40),
        samples=2000,
        found="Here this is so in part. In the first epochs angles fall while backpropagation is far ahead, and "
        "then DFA fits the training data as well. But angles go on falling to the end. Hardly any of the labels "
        "by chance are fitted before angles fall.",
    ),
    "Muon": Study(
        "No figure of the survey: Jordan's optimizer of 2024, which evens out the singular values of an update, beside "
        "Adam under some rules. Both at 1e-3, and neither decays; `reclra` is along edges, like the default but for "
        "its decay and its output layer's rate.",
        _muon(),
        found="Here Muon ends ahead of Adam under every rule and on every net, by 1.3 to 3.8 points. That is not "
        "because updates lie nearer to the gradient: under fixed feedback and dense layers they lie further from it. "
        "These are five epochs at one rate, which was not sought for either.",
    ),
}
