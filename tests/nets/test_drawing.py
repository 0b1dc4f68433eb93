"""Drawings: what they hold, that they need nothing from the network, and that every level and size draws."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import networkx as nx
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from tiny import compiled

from altprop import Connection, ExportError, Feedback, RegionPlan, WiringPlan
from altprop.ir.drawing import to_dot, to_networkx
from altprop.ir.drawing.arrange import place
from altprop.ir.drawing.canvas import inches, shorten
from altprop.ir.drawing.figure import make_figure
from altprop.ir.drawing.style import colour_of
from altprop.ir.graph import ErrorGraph, ErrorNeurons
from altprop.rules.resolve import resolve

pytestmark = pytest.mark.third

SVG = "{http://www.w3.org/2000/svg}"
HISTORY = ("capture", "cut_regions", "insert_error_neurons", "connect_skip_errors", "insert_feedback")


def residual() -> ErrorGraph:
    return compiled("residual", "reclra", "blocks").graph


def ids(svg: str) -> list[str]:
    return [str(element.get("id")) for element in ET.fromstring(svg).iter(f"{SVG}g") if element.get("id")]


def drawn(graph: ErrorGraph, tmp_path: Path, suffix: str = "svg") -> str:
    return graph.draw(tmp_path / f"graph.{suffix}").read_text("utf-8")


def test_networkx_has_every_kind_of_node_and_edge() -> None:
    graph = residual()
    network = graph.to_networkx()
    names = [region.name for region in graph.regions]
    kinds = nx.get_node_attributes(network, "kind")
    assert [name for name, kind in kinds.items() if kind == "region"] == names
    assert [name for name, kind in kinds.items() if kind == "error"] == [f"e[{name}]" for name in names]
    assert {name for name, kind in kinds.items() if kind in ("input", "loss")} == {"input x", "loss()"}
    edges = list(network.edges(data=True))
    wires = {(a, b) for a, b, values in edges if values["kind"] == "skip-error"}
    assert wires == {(f"e[{c.source}]", f"e[{c.target}]") for c in graph.connections}
    forward = {(a, b) for a, b, values in edges if values["kind"] == "forward"}
    assert forward == {
        ("input x", "stem"),
        ("stem", "blocks.0.conv1"),
        ("stem", "blocks.0.conv2"),
        ("blocks.0.conv1", "blocks.0.conv2"),
        ("blocks.0.conv2", "blocks.1.conv1"),
        ("blocks.0.conv2", "blocks.1.conv2"),
        ("blocks.1.conv1", "blocks.1.conv2"),
        ("blocks.1.conv2", "fc"),
        ("fc", "loss()"),
    }
    assert [(a, b) for a, b, values in edges if values["kind"] == "loss-gradient"] == [("loss()", "e[fc]")]
    (wire,) = (values for values in network["e[fc]"]["e[stem]"].values())
    assert (wire["feedback"], wire["learning"], wire["name"]) == ("dense", True, "fc->stem")
    assert network.nodes["stem"]["activation"] == "relu(h)"


def test_regions_alone_before_wiring() -> None:
    network = to_networkx(compiled("nine", "reclra", "blocks(gap=3)").history["cut_regions"])
    assert set(nx.get_node_attributes(network, "kind").values()) == {"input", "region", "output"}
    assert set(nx.get_edge_attributes(network, "kind").values()) == {"forward"}
    assert nx.is_weakly_connected(network)


def test_operators_before_cutting() -> None:
    network = to_networkx(compiled("mlp", "reclra", "direct").history["capture"])
    assert list(nx.topological_sort(network)) == [
        "input input",
        "addmm",
        "tanh",
        "addmm_1",
        "tanh_1",
        "addmm_2",
        "output()",
    ]


@pytest.mark.parametrize("model", ["mlp", "residual"])
def test_dot(golden: Callable[[str, str], None], model: str) -> None:
    rule, plan = ("reclra", "direct") if model == "mlp" else ("reclra", "blocks")
    golden(f"dot-{model}", to_dot(compiled(model, rule, plan).graph))
    assert compiled(model, rule, plan).graph.dot() == to_dot(compiled(model, rule, plan).graph)


def test_svg_shows_every_region_error_and_connection(tmp_path: Path) -> None:
    graph = residual()
    svg = drawn(graph, tmp_path)
    found = ids(svg)
    for region in graph.regions:
        assert found.count(f"region {region.name}") == 1
        assert found.count(f"error {region.name}") == 1
        assert f">{region.name}</text>" in svg
    for c in graph.connections:
        assert found.count(f"skip-error {c.name}") == 1
    assert {"loss", "loss gradient", "block blocks.0", "block blocks.1", "forward stem -&gt; blocks.0.conv2"} <= {
        name.replace(">", "&gt;") for name in found
    }
    assert ">dense feedback, learned</text>" in svg
    assert ">position feedback, learned</text>" in svg


def style_of(svg: str, gid: str) -> str:
    group = next(g for g in ET.fromstring(svg).iter(f"{SVG}g") if g.get("id") == gid)
    return str(next(group.iter(f"{SVG}path")).get("style"))


def test_learned_is_solid_fixed_is_dashed_and_kinds_have_colours(tmp_path: Path) -> None:
    learned = drawn(residual(), tmp_path)
    fixed = drawn(compiled("mlp", "dfa").graph, tmp_path)
    assert "stroke-dasharray" not in style_of(learned, "skip-error fc->stem")
    assert "stroke-dasharray" in style_of(fixed, "skip-error fc3->fc1")
    colours = {
        re.search(r"stroke: (#\w+)", style_of(learned, gid))[1]  # type: ignore[index]
        for gid in (
            "skip-error fc->stem",
            "skip-error blocks.0.conv2->blocks.0.conv1",
            "forward stem -> blocks.0.conv1",
            "loss gradient",
        )
    }
    assert len(colours) == 4


@pytest.mark.parametrize("stage", HISTORY)
@pytest.mark.parametrize("suffix", ["svg", "png", "pdf", "dot", "graphml", "html"])
def test_every_level_draws_in_every_format(tmp_path: Path, stage: str, suffix: str) -> None:
    graph = compiled("mlp", "reclra", "direct").history[stage]
    path = graph.draw(str(tmp_path / f"graph.{suffix}"))
    begin = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF", "dot": b"digraph", "graphml": b"<graphml"}
    assert path.read_bytes().startswith(begin.get(suffix, b"<!DOCTYPE html>"))


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf", "html"])
def test_the_same_graph_gives_the_same_file(tmp_path: Path, suffix: str) -> None:
    graph = compiled("mlp", "reclra", "direct").graph
    first = graph.draw(tmp_path / f"a.{suffix}").read_bytes()
    assert graph.draw(tmp_path / f"b.{suffix}").read_bytes() == first


def test_graphml_reads_back(tmp_path: Path) -> None:
    graph = residual()
    path = graph.draw(tmp_path / "graph.graphml")
    read, made = nx.read_graphml(path, force_multigraph=True), to_networkx(graph)
    assert dict(read.nodes(data=True)) == dict(made.nodes(data=True))
    assert sorted(read.edges()) == sorted(made.edges())


def test_page_is_whole_and_asks_the_network_for_nothing(tmp_path: Path) -> None:
    graph = residual()
    page = drawn(graph, tmp_path, "html")
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert [attributes for attributes, _ in scripts] == ["", ' type="application/json" id="altprop-data"', ""]
    assert "The Cytoscape Consortium" in scripts[0][1]  # the library, with its licence
    page = re.sub(r"<script[^>]*>.*?</script>|<!-- cytoscape.*?-->", "", page, flags=re.DOTALL)
    assert "<title>altprop: derived graph, plan blocks</title>" in page
    assert page.count("<svg") == 1
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!#)|@import|<link|<script|url\((?!#)", page)
    links = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert links <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not addresses
    assert "<td>blocks.0.conv2</td><td>blocks.0.conv1</td><td>position</td>" in page
    assert "<td>stem</td><td>reclra</td><td>yes</td>" in page


def test_names_are_text_never_mathematics_or_markup(tmp_path: Path) -> None:
    graph = compiled("mlp", "reclra", "direct").history["cut_regions"]
    odd = ['a$b_{1}$ & "q"', "<b>\\n", "x" * 200]
    regions = tuple(
        type(region)(**{**vars(region), "name": name}) for region, name in zip(graph.regions, odd, strict=True)
    )
    graph = graph.replace(regions=regions)
    svg, page = drawn(graph, tmp_path), drawn(graph, tmp_path, "html")
    assert "a$b_{1}$ &amp; " in svg
    assert "<b>\\n" not in page
    assert "&lt;b&gt;\\n" in page
    assert f">{'x' * 21}\N{HORIZONTAL ELLIPSIS}{'x' * 21}</text>" in svg
    assert '"a$b_{1}$ & \\"q\\"" -> "<b>\\\\n"' in to_dot(graph)


def wide(count: int) -> ErrorGraph:
    """Many regions in a row, every one heard from the last one; fields beyond the drawing are borrowed."""
    graph = compiled("mlp", "reclra", "direct").history["connect_skip_errors"]
    first, last = graph.regions[0], graph.regions[-1]
    names = [f"layer{n}" for n in range(count - 1)]
    hidden = [type(first)(**{**vars(first), "name": name, "outputs": (), "sources": ()}) for name in names]
    regions = (*hidden, last)
    plan = WiringPlan(
        tuple(RegionPlan(r.name, "dfa") for r in regions),
        tuple(Connection(last.name, r.name, Feedback("dense")) for r in hidden),
    )
    neurons = {r.name: ErrorNeurons(r.name, "dfa", r.shape) for r in regions}
    changes = {"regions": regions, "plan": plan, "rules": resolve(plan), "neurons": neurons}
    return graph.replace(**changes, connections=plan.connections)


@pytest.mark.parametrize("count", [4, 60])
def test_boxes_and_texts_of_a_deep_network_stay_apart(count: int) -> None:
    figure = make_figure(to_networkx(wide(count)))
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.axes[0]
    boxes = [p.get_window_extent(renderer) for p in axes.patches if str(p.get_gid()).startswith(("region", "input"))]
    assert len(boxes) == count + 1
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    page = figure.bbox
    for text in axes.texts:
        extent = text.get_window_extent(renderer)
        assert page.x0 <= extent.x0 < extent.x1 <= page.x1, text.get_text()
        assert page.y0 <= extent.y0 < extent.y1 <= page.y1, text.get_text()
    named = [text for text in axes.texts if text.get_text().startswith("layer")]
    assert all(text.get_fontsize() >= 8 for text in named)


@pytest.mark.full
def test_pixels_are_bounded(tmp_path: Path) -> None:
    data = wide(90).draw(tmp_path / "deep.png").read_bytes()
    width, height = (int.from_bytes(data[at : at + 4]) for at in (16, 20))
    assert 800 < width < height <= 12000


def test_long_forward_edges_clear_the_boxes_between() -> None:
    network = nx.MultiDiGraph(level="cut", plan="")
    names = [f"r{n}" for n in range(5)]
    for name in names:
        network.add_node(name, kind="region", label=name)
    for a, b in [*pairwise(names), ("r0", "r2"), ("r0", "r4"), ("r1", "r4")]:
        network.add_edge(a, b, kind="forward")
    widths = dict.fromkeys(names, 2.0)
    layout = place(network, widths, row_height=0.7, gap=0.5)
    for (source, target), points in layout.routes.items():
        assert points[0] == layout.boxes[source]
        assert points[-1] == layout.boxes[target]
        for x, y in points[1:-1]:
            (between,) = (name for name, (_, other) in layout.boxes.items() if other == y)
            assert abs(x - layout.boxes[between][0]) > 1.0, f"{source} -> {target} crosses {between}"
    assert layout.lane > max(x + 1.0 for x, _ in layout.boxes.values())


def test_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r'ends in \.svg, \.png, \.pdf, \.dot, \.graphml, \.html, not in "\.gif"'):
        residual().draw(tmp_path / "graph.gif")
    with pytest.raises(ExportError, match="cannot be written"):
        residual().draw(tmp_path / "none" / "graph.dot")


def test_no_global_state_of_matplotlib(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    residual().draw(tmp_path / "graph.svg")
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


@pytest.mark.full
def test_import_loads_no_drawing_library() -> None:
    code = "import altprop, sys; assert not {'matplotlib', 'igraph', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_colours_are_stable_and_distinct() -> None:
    assert colour_of(["dense", "odd"])["dense"] == colour_of(["channel", "dense"])["dense"]
    kinds = ["dense", "position", "channel", "forward", "transpose", "a", "b", "c"]
    assert len(set(colour_of(kinds).values())) == len(kinds)


def test_texts_are_measured_and_shortened() -> None:
    assert inches("wwww", 9) == pytest.approx(4 * inches("w", 9), rel=0.1)
    assert inches("w", 9, "bold") > inches("w", 9)
    assert inches("", 9) == 0.0
    assert shorten("abc") == "abc"
    assert shorten("abcdefghij", 7) == "abc\N{HORIZONTAL ELLIPSIS}hij"
