"""Wiring plans in files: what is saved is loaded, what a person edits compiles, what is wrong is named."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import kept
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import altprop
from altprop import Connection, Feedback, PlanError, RegionPlan, WiringPlan
from altprop.ir.plan_graphml import format_graphml, parse_graphml
from altprop.ir.plan_schema import from_document, to_document
from altprop.ir.plan_text import format_plan, parse_plan

SUFFIXES = ("json", "graphml", "txt")

PLAN = WiringPlan(
    (
        RegionPlan("fc1", "reclra(beta=0.2)"),
        RegionPlan("layers.0.conv@1 + down#2", "reclra(feedback_learning='fixed')", False, "cuda:0"),
        RegionPlan("region 1", "frozen; no error neurons"),
        RegionPlan("fc3", "bp"),
    ),
    (
        Connection("fc3", "fc1", Feedback("dense", {"scale": 1.0, "distribution": "normal"}, True)),
        Connection("fc3", "layers.0.conv@1 + down#2", Feedback("dense", {"k": 3, "of": [1, "a, b=2"], "n": None})),
        Connection("region 1", "fc1", Feedback("position")),
    ),
    "blocks(gap=3)",
)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def compiled(plan: object = "direct") -> altprop.LocalNet:
    rule = "reclra" if isinstance(plan, str) else None  # a finished plan says its own
    return kept.compile(network(), rule=rule, plan=plan, example_inputs=(torch.zeros(3, 5),))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_saved_is_loaded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plan.{suffix}"
    PLAN.save(path)
    assert WiringPlan.load(path) == PLAN
    assert WiringPlan.load(str(path)) == PLAN


def test_text_is_as_documented() -> None:
    assert format_plan(PLAN).splitlines() == [
        "altprop plan 1",
        "plan blocks(gap=3)",
        "region fc1: reclra(beta=0.2)",
        "region layers.0.conv@1 + down#2: reclra(feedback_learning='fixed'); no error neurons; device cuda:0",
        'region "region 1": "frozen; no error neurons"',
        "region fc3: bp",
        'fc3 -> fc1: dense(scale=1.0, distribution="normal") learned',
        'fc3 -> layers.0.conv@1 + down#2: dense(k=3, of=[1, "a, b=2"], n=null) fixed',
        '"region 1" -> fc1: position fixed',
    ]
    assert str(PLAN) == format_plan(PLAN)


def test_text_may_hold_comments_and_blank_lines() -> None:
    text = format_plan(PLAN).replace("\n", "\n\n  # a remark\r\n")
    assert parse_plan(text) == PLAN


NAMES = st.one_of(
    st.from_regex(r"[a-z]{1,4}(\.[0-9a-z]{1,3}){0,2}(@[0-9]|#[0-9]| \+ [a-z]{1,3})?", fullmatch=True),
    st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable() and text == text.strip()),
    st.sampled_from(["region", "plan x", "a -> b", "a->b", '"', "x-", "fc(1)", "#", "a: b", "learned", "region a"]),
)
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=6))
VALUES = st.recursive(LEAVES, lambda own: st.lists(own, max_size=3) | st.dictionaries(st.text(max_size=3), own))


@st.composite
def plans(draw: st.DrawFn) -> WiringPlan:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    regions = [RegionPlan(name, draw(NAMES), draw(st.booleans()), draw(st.none() | NAMES)) for name in names]
    ends = st.sampled_from(names)
    options = st.dictionaries(st.text(max_size=4), VALUES, max_size=3)
    feedback = st.builds(Feedback, NAMES, options, st.booleans())
    connections = draw(st.lists(st.builds(Connection, ends, ends, feedback), max_size=4))
    return WiringPlan(tuple(regions), tuple(connections), draw(NAMES))


@settings(max_examples=60)
@given(plans())
def test_every_plan_survives_every_format(plan: WiringPlan) -> None:
    assert parse_plan(format_plan(plan)) == plan
    assert parse_graphml(format_graphml(plan), "plan") == plan
    assert from_document(json.loads(json.dumps(to_document(plan))), "plan") == plan


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_edited_file_compiles(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plan.{suffix}"
    compiled().plan.save(path)
    before = path.read_text("utf-8")
    after = {
        "json": re.sub(r'"source": "4",(\s*)"target": "0"', r'"source": "2",\1"target": "0"', before),
        "graphml": before.replace('source="4" target="0"', 'source="2" target="0"'),
        "txt": before.replace("4 -> 0: dense", "2 -> 0: dense"),
    }[suffix]
    assert after != before
    path.write_text(after, "utf-8")
    net = compiled(path)
    assert [c.name for c in net.graph.connections] == ["4->2", "2->0"]
    assert {name: tuple(p.shape) for name, p in net.feedback.items()} == {"4->2": (2, 3), "2->0": (3, 4)}
    assert compiled(str(path)).plan == net.plan


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_saved_plan_compiles_to_the_same_step(tmp_path: Path, suffix: str) -> None:
    net = compiled()
    path = tmp_path / f"plan.{suffix}"
    net.plan.save(path)
    again = compiled(path)
    x, y = torch.randn(3, 5), torch.tensor([0, 1, 1])
    assert torch.equal(net.backward(x, y), again.backward(x, y))
    for p, q in zip(net.model.parameters(), again.model.parameters(), strict=True):
        assert p.grad is not None
        assert torch.equal(p.grad, q.grad)


def written(tmp_path: Path, suffix: str, change: Callable[[str], str]) -> Path:
    path = tmp_path / f"plan.{suffix}"
    PLAN.save(path)
    before = path.read_text("utf-8")
    after = change(before)
    assert after != before, "the test changes nothing"
    path.write_text(after, "utf-8")
    return path


def swap(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:30], r"plan\.json, line 2, column 13: this is not JSON"),
        (lambda text: "[]", "an object with keys, not a list"),
        (swap('"version": 1', '"version": 2'), "version 2; this altprop reads version 1"),
        (swap('"version": 1', '"version": true'), "version true; this altprop reads version 1"),
        (swap('"version": 1,', ""), "no version; this altprop reads version 1"),
        (
            swap("altprop/wiring-plan", "other"),
            'schema "other"; a wiring plan has schema "altprop/wiring-plan"',
        ),
        (swap('"kind": "dense"', '"knd": "dense"'), r"connections\[0\]\.feedback\.kind: is missing"),
        (swap('"kind": "dense"', '"knd": "dense"'), r"connections\[0\]\.feedback\.knd: there is no such key"),
        (
            swap('"kind": "position"', '"kind": 3'),
            r"connections\[2\]\.feedback\.kind: .*valid string, not 3\.",
        ),
        (swap('"learning": true', '"learning": "yes"'), r'\.learning: .*valid boolean, not the text "yes"'),
        (swap('"error_neurons": false', '"error_neurons": 0'), r"regions\[1\]\.error_neurons: .*not 0\."),
        (swap('"name": "fc1"', '"name": " fc1"'), r'regions\[0\]\.name: " fc1" .*spaces around it'),
        (swap('"name": "fc1"', '"name": ""'), r'regions\[0\]\.name: "" is empty'),
        (swap('"scale": 1.0', '"scale": NaN'), "numbers must be finite"),
        (swap('"kind": "dense",', '"kind": "dense", "kind": "x",'), 'the key "kind" stands twice'),
    ],
)
def test_wrong_json_is_named(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        WiringPlan.load(written(tmp_path, "json", change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", 'line 1: a plan begins with the line "altprop plan 1"'),
        (swap("plan 1", "plan 2"), "line 1: version 2; this altprop reads version 1"),
        (swap("plan 1", "plan 1 or so"), 'line 1: .*not with "altprop plan 1 or so"'),
        (swap("region fc1:", "region fc1"), 'line 3: "region fc1 reclra.*does not read as a region'),
        (swap("region fc1", "regoin fc1"), 'line 3: "regoin fc1.*does not read'),
        (swap("device cuda:0", "devcie cuda:0"), "line 4: .*does not read"),
        (swap(" learned", " learnd"), "line 7: .*does not read"),
        (swap("scale=1.0, ", "scale=1.0 "), 'line 7: options are separated by commas: after "scale"'),
        (swap("scale=1.0, ", "scale=one, "), 'line 7: the value of "scale" in one.* is not JSON'),
        (
            swap("scale=1.0, ", "scale=Infinity, "),
            "line 7: Infinity is not a number of JSON; numbers must be finite",
        ),
        (swap("scale=1.0, ", "scale, "), "line 7: options are written name=value"),
        (swap("scale=1.0, ", "scale=1.0, scale=2, "), 'line 7: the option "scale" stands twice'),
        (swap('"normal")', '"normal",)'), 'line 7: options are separated by commas: after "distribution"'),
        (swap("region fc1", "plan a\nregion fc1"), "line 3: the name of the plan stands twice"),
        (swap('"region 1":', r'"region\t1":'), r"line 5: .*characters that do not print"),
        (lambda text: text + "trailing", 'line 10: "trailing" does not read'),
    ],
)
def test_wrong_text_is_named_by_line(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        WiringPlan.load(written(tmp_path, "txt", change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "<graphml>", "line 1, column 10: this is not XML"),
        (lambda text: "<other/>", "this is not GraphML"),
        (swap(">1</data>\n    <data", ">2</data>\n    <data"), "version 2; this altprop reads version 1"),
        (swap('edgedefault="directed"', 'edgedefault="undirected"'), "connections have a direction"),
        (swap('{"scale"', "{scale"), r"connections\[0\]\.feedback\.options.* is not JSON"),
        (swap(">position<", "><"), r'connections\[2\]\.feedback\.kind: "" is empty'),
        (swap('"learning"', '"learnin"'), r"connections\[0\]\.learnin: there is no such key"),
        (swap('<node id="fc1">', '<node id="fc1" /><node id="fc1">'), 'the node "fc1" stands twice'),
        (swap('source="region 1"', 'source="fc9"'), 'an edge ends at "fc9", but there is no such node'),
        (swap('attr.name="rule"', 'attr.name="rul"'), r"regions\[0\]\.rule: is missing"),
    ],
)
def test_wrong_graphml_is_named(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        WiringPlan.load(written(tmp_path, "graphml", change))


def test_graphml_keeps_what_an_editor_adds_last(tmp_path: Path) -> None:
    node = '<node id="new"><data key="{}">dfa</data></node>'
    text = format_graphml(PLAN)
    match = re.search(r'key id="(\w+)" for="node" attr.name="rule"', text)
    assert match is not None
    path = tmp_path / "plan.graphml"
    path.write_text(text.replace('<node id="fc1">', node.format(match[1]) + '<node id="fc1">'), "utf-8")
    assert WiringPlan.load(path).regions == (*PLAN.regions, RegionPlan("new", "dfa"))


def test_graphml_cannot_hold_two_regions_of_one_name(tmp_path: Path) -> None:
    plan = WiringPlan((RegionPlan("a", "bp"), RegionPlan("a", "bp")), ())
    with pytest.raises(PlanError, match=r'regions\[1\]\.name: "a" stands twice'):
        plan.save(tmp_path / "plan.graphml")


def test_missing_file_and_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.json: there is no such file"):
        WiringPlan.load(tmp_path / "none.json")
    for use in (WiringPlan.load, PLAN.save):
        with pytest.raises(PlanError, match=r'a plan file ends in \.json, \.graphml, \.txt, not in "\.yaml"'):
            use(tmp_path / "plan.yaml")
    with pytest.raises(PlanError, match="cannot be written"):
        PLAN.save(tmp_path / "none" / "plan.json")
    (tmp_path / "bytes.txt").write_bytes(b"altprop \xff")
    with pytest.raises(PlanError, match="byte 8 is not UTF-8"):
        WiringPlan.load(tmp_path / "bytes.txt")


@pytest.mark.parametrize("value", [torch.zeros(1), (1, 2), {1: 2}, float("nan"), {"x"}])
def test_options_without_a_form_in_files_are_refused(tmp_path: Path, value: object) -> None:
    plan = WiringPlan((RegionPlan("a", "bp"),), (Connection("a", "a", Feedback("dense", {"v": value})),))
    for suffix in SUFFIXES:
        with pytest.raises(PlanError, match=r"connections\[0\]\.feedback\.options: "):
            plan.save(tmp_path / f"plan.{suffix}")


def test_schema_names_every_key() -> None:
    schema = WiringPlan.schema()
    assert set(schema["required"]) == {"schema", "version", "regions", "connections"}
    assert schema["properties"]["version"]["const"] == 1
    assert set(schema["$defs"]["RegionDocument"]["properties"]) == {"name", "rule", "error_neurons", "device"}
    assert schema["additionalProperties"] is False


def regions(*names: str, rule: str = "reclra") -> tuple[RegionPlan, ...]:
    return tuple(RegionPlan(name, rule) for name in names)


def wires(*pairs: str) -> tuple[Connection, ...]:
    return tuple(Connection(*pair.split("->"), Feedback("dense")) for pair in pairs)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (WiringPlan(regions("0", "2", "5"), wires("4->0")), r'regions\[2\]\.name: there is no region "5"'),
        (WiringPlan(regions("0", "2"), wires("2->0")), 'regions: region "4" is missing; give it a rule'),
        (WiringPlan(regions("0", "2", "4", "0"), ()), r'regions\[3\]\.name: "0" stands twice'),
        (
            WiringPlan(regions("0", "2", "4"), wires("4->x")),
            r'connections\[0\]\.target: there is no region "x"',
        ),
        (
            WiringPlan(regions("0", "2", "4"), wires("x->0")),
            r'connections\[0\]\.source: there is no region "x"',
        ),
        (WiringPlan(regions("0", "2", "4"), wires("4->0", "4->0")), r'connections\[1\]: "4->0" stands twice'),
        (WiringPlan(regions("0", "2", "4"), wires("4->2")), r'regions\[0\]: no connection .* region "0"'),
        (
            WiringPlan(regions("0", "2", "4"), wires("4->2", "2->0", "0->2")),
            "the connections form a cycle, .*(0 -> 2 -> 0|2 -> 0 -> 2)",
        ),
        (
            WiringPlan(regions("0", "2", "4", rule="nonsense"), wires("4->2", "4->0")),
            r'regions\[0\]\.rule: there is no rule "nonsense"',
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(plan: WiringPlan, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        compiled(plan)
