"""Readers of files and texts that strangers may have written, and whole files of each to damage."""

import dataclasses
import gzip
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from citations import make_citations

import altprop
from altprop import Machine, PlanError, ProgramError, RuleError, Schedule, ScheduleError, WiringPlan
from altprop.data import DataError
from altprop.data.characters import load_characters
from altprop.data.cifar import CIFAR_10, load_cifar
from altprop.data.idx import read_idx
from altprop.data.pickles import PickleError, read_pickle
from altprop.data.planetoid import load_citations
from altprop.ir.plan_text import parse_plan
from altprop.ir.program_text import format_program, parse_program
from altprop.rules import get
from altprop.training import TrainingError, make_config
from altprop.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader under attack.

    Attributes:
        name: what it reads.
        error: what it may raise.
        seeds: makes whole files in a folder; they are damaged one at a time, the others stay as they are.
        read: reads the damaged file; what it returns is held against `right`.
        right: asserts what must hold of anything that was read.
    """

    name: str
    error: type[Exception]
    seeds: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    right: Callable[[Any], None] = lambda found: None


def small_net(rule: str = "reclra", **options: Any) -> altprop.LocalNet:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)
    )
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9)
    net = altprop.compile(
        model, rule=rule, example_inputs=(torch.zeros(4, 5),), optimizer=optimizer, loss="cross_entropy", **options
    )
    net.step(torch.ones(4, 5), torch.tensor([0, 1, 2, 0]))
    return net


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def text_of(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


PLANS = ("reclra", "dfa", "fa")


def plan_texts(folder: Path) -> list[Path]:
    plans = [small_net(rule).plan for rule in PLANS]
    plans.append(small_net({"0": "dfa(kind='low_rank', options={'rank': 2})", "*": "kp"}).plan)  # type: ignore[arg-type]
    return [written(folder / f"{number}.txt", str(plan)) for number, plan in enumerate(plans)]


def plan_files(suffix: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        paths = [folder / f"{rule}{suffix}" for rule in PLANS]
        for rule, path in zip(PLANS, paths, strict=True):
            small_net(rule).plan.save(path)
        return paths

    return make


def same_plan(plan: WiringPlan) -> None:
    """A plan that was taken prints as a text that is the same plan."""
    assert parse_plan(str(plan)) == plan


def schedule_texts(folder: Path) -> list[Path]:
    net = small_net("dfa")
    return [written(folder / f"{n}.txt", str(net.schedule(devices=n, batch=8))) for n in (1, 2, 3)]


def read_schedule(path: Path) -> Schedule:
    return Schedule.parse(text_of(path))


def same_schedule(schedule: Schedule) -> None:
    text = str(schedule)
    assert str(Schedule.parse(text)) == text


def machine_files(folder: Path) -> list[Path]:
    paths = [folder / "one.json", folder / "two.json"]
    for path, machine in zip(paths, (Machine(), Machine(speeds={"cpu:1": 2.0})), strict=True):
        machine.save(path)
    return paths


def works(machine: Machine) -> None:
    """Everything a machine says is a number of seconds."""
    assert 0 <= machine.seconds(10**6, 10**6, 10) < float("inf")
    assert 0 <= machine.transfer(10**6) < float("inf")


CONFIGS = (
    "model: mlp\nrule: reclra(beta=0.1)\ndata: digits\nepochs: 3\nbatch_size: 32\n",
    "model: conv\nrule: {'conv*': dfa, '*': bp}\noptimizer: adam\nlr: 1.0e-3\nseed: 7\ndevice: cpu\n",
)


def config_files(folder: Path) -> list[Path]:
    return [written(folder / f"{number}.yaml", text) for number, text in enumerate(CONFIGS)]


def checkpoint_files(folder: Path) -> list[Path]:
    paths = []
    for rule in ("dfa", "reclra"):
        net, paths = small_net(rule), [*paths, folder / f"{rule}.pt"]
        rows = [{"epoch": 1.0, "loss": 2.0}]
        save_checkpoint(paths[-1], Checkpoint(1, net.state_dict(), torch.zeros(8), [torch.get_rng_state()], rows))
    return paths


def whole(checkpoint: Checkpoint) -> None:
    """What is taken for whole is whole."""
    assert checkpoint.epoch == 1
    assert checkpoint.history == [{"epoch": 1.0, "loss": 2.0}]


class Sharded:
    """Checkpoints of a schedule: a manifest, and tensors beside it."""

    def __init__(self) -> None:
        self.runtime: Any = None

    def seeds(self, folder: Path) -> list[Path]:
        self.runtime = small_net("dfa").schedule(devices=2, batch=8).runtime("serial")
        self.runtime.step(torch.ones(8, 5), torch.zeros(8, dtype=torch.long))
        self.runtime.save(folder / "run")
        return sorted(path for path in (folder / "run").glob("step-*/*") if path.is_file())

    def read(self, path: Path) -> int:
        steps: int = self.runtime.resume(path.parents[1])
        return steps


def went_on(steps: int) -> None:
    """A run that begins anew though there is a checkpoint has lost one."""
    assert steps == 2  # one of the net, one of the schedule


def citation_files(folder: Path) -> list[Path]:
    make_citations(folder / "planetoid")
    return sorted((folder / "planetoid").iterdir())


def idx_files(folder: Path) -> list[Path]:
    images = np.random.default_rng(0).integers(0, 255, (3, 5, 5)).astype(np.uint8)
    head = b"".join(size.to_bytes(4, "big") for size in (0x803, *images.shape))
    plain = written(folder / "images-idx3-ubyte", head + images.tobytes())
    packed = written(folder / "images-idx3-ubyte.gz", gzip.compress(head + images.tobytes()))
    return [plain, packed, written(folder / "labels-idx1-ubyte", bytes.fromhex("00000801 00000003 01 02 03"))]


def cifar_files(folder: Path) -> list[Path]:
    home = folder / "cifar-10-batches-py"
    home.mkdir()
    draw = np.random.default_rng(0)
    paths = []
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        content = {"data": draw.integers(0, 255, (4, 3072)).astype(np.uint8), "labels": [0, 9, 3, 5]}
        paths.append(written(home / name, pickle.dumps(content, protocol=2)))
    return paths


def read_cifar(path: Path) -> Any:
    return load_cifar(CIFAR_10, path.parents[1], validation=2)


def labelled(data: Any) -> None:
    for split in (data.train, data.validation, data.test):
        assert split.images.shape[1:] == (3, 32, 32)
        assert ((split.labels >= 0) & (split.labels < 10)).all()


def pickle_files(folder: Path) -> list[Path]:
    values = [{"a": [1, -2, 3.5, None, True, "é", b"\xff"]}, np.eye(3), {"data": np.arange(12.0), 3: (1, (2, 3))}]
    return [
        written(folder / f"{number}-{protocol}", pickle.dumps(value, protocol=protocol))
        for number, value in enumerate(values)
        for protocol in (2, 4)
    ]


def character_files(folder: Path) -> list[Path]:
    text = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n" * 20
    (folder / "tinyshakespeare").mkdir()
    return [written(folder / "tinyshakespeare" / "input.txt", text)]


def rule_texts(folder: Path) -> list[Path]:
    texts = [
        "reclra(beta=0.1, units='beta')", "dfa(kind='low_rank', options={'rank': 2})", "fa", "kp(weight_decay=1e-06)",
        "hdfa(gamma=0.9)",
        "drtp(scale=2)", "local_loss", "tp", "reclra(kappa={'2': 0.5})", "modular",
    ]  # fmt: skip
    return [written(folder / f"{number}.txt", text) for number, text in enumerate(texts)]


def same_rule(rule: Any) -> None:
    assert str(get(str(rule))) == str(rule)


def program_texts(folder: Path) -> list[Path]:
    nets = [small_net(rule) for rule in ("reclra", "dfa")]
    programs = [program for net in nets for program in net.graph.programs.values()]
    return [written(folder / f"{number}.txt", format_program(program)) for number, program in enumerate(programs)]


def read_program(path: Path) -> Any:
    return parse_program(text_of(path))


def same_program(program: Any) -> None:
    text = format_program(program)
    assert format_program(parse_program(text)) == text


def _read_sharded() -> Target:
    sharded = Sharded()
    return Target("checkpoints of schedules", ScheduleError, sharded.seeds, sharded.read, went_on)


TARGETS = (
    Target("texts of plans", PlanError, plan_texts, lambda path: parse_plan(text_of(path)), same_plan),
    Target("plans, JSON", PlanError, plan_files(".json"), WiringPlan.load, same_plan),
    Target("plans, GraphML", PlanError, plan_files(".graphml"), WiringPlan.load, same_plan),
    Target(
        "texts of schedules", ScheduleError, schedule_texts, lambda path: Schedule.parse(text_of(path)), same_schedule
    ),
    Target("texts of programs", ProgramError, program_texts, read_program, same_program),
    Target("texts of rules", RuleError, rule_texts, lambda path: get(text_of(path)), same_rule),
    Target("machine files", ScheduleError, machine_files, Machine.load, works),
    Target("configurations of runs", TrainingError, config_files, make_config),
    Target("checkpoints of runs", TrainingError, checkpoint_files, load_checkpoint, whole),
    _read_sharded(),
    Target("pickles", PickleError, pickle_files, lambda path: read_pickle(path.read_bytes())),
    Target("idx files", DataError, idx_files, read_idx),
    Target("CIFAR-10 batches", DataError, cifar_files, read_cifar, labelled),
    Target("citation graphs", DataError, citation_files, lambda path: load_citations("cora", path.parents[1])),
    Target("texts of characters", DataError, character_files, lambda path: load_characters(path.parents[1])),
)
