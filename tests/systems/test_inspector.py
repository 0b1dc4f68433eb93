"""The inspector, in headless Chromium without a network: it folds, lights up ways, slides, colours by angle."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import kept
import pytest
import torch
from processes import HANG
from torch import nn

import altprop
from altprop.ir.drawing.operators_view import operators
from altprop.ir.drawing.what_it_does import what_it_does
from altprop.ir.reading import operator_name

BEFORE = """<script>window.problems = [];
window.onerror = (message) => { window.problems.push(message); };</script>"""
# Plays a visitor, and leaves what was seen in the page.
VISIT = """<script>(() => {
  const {cy, state} = window.altpropInspector, seen = {};
  const at = (name) => document.getElementById("altprop-" + name);
  const count = (kind) => cy.elements("." + kind).length;
  seen.regions = count("region"); seen.errors = count("error"); seen.wires = count("skip-error");
  seen.tied = count("tied");
  cy.nodes(".error")[0].emit("tap");
  seen.lit = cy.nodes(".lit").map((node) => node.id());
  seen.head = at("head").textContent; seen.details = at("details").textContent;
  at("colour").value = "angle"; at("colour").dispatchEvent(new Event("change"));
  seen.fills = cy.nodes(".region").map((node) => node.data("fill"));
  seen.key = at("key").textContent;
  seen.past = cy.edges(".far").map((edge) => [edge.source().id(), edge.target().id()]);
  at("fold").click();
  seen.blocks = cy.nodes(".block").map((node) => node.data("fill"));
  seen.folded = [count("region"), count("block"), count("error")];
  at("fold").click();
  at("pass").value = 0; at("pass").dispatchEvent(new Event("input"));
  seen.first = [count("operator"), count("region"), count("error"), at("did").textContent];
  cy.nodes(".operator").filter((node) => node.data("label") === "tanh")[0].emit("tap");
  seen.value = [at("details").textContent, cy.nodes(".lit").length];
  at("pass").value = 1; at("pass").dispatchEvent(new Event("input"));
  seen.second = [count("operator"), count("region"), count("error"), at("did").textContent];
  at("pass").value = at("pass").max; at("pass").dispatchEvent(new Event("input")); at("fit").click();
  const box = cy.elements().renderedBoundingBox();
  seen.inside = [box.x1 >= 0, box.y1 >= 0, box.x2 <= cy.width(), box.y2 <= cy.height()];
  seen.order = at("order").textContent; seen.problems = window.problems;
  const made = document.createElement("pre"); made.id = "seen"; made.textContent = JSON.stringify(seen);
  document.body.append(made);
})();</script>"""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x).relu())


class Tied(nn.Module):
    """Two alike blocks, and an output that shares the first layer's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.blocks = nn.ModuleList([Block() for _ in range(2)])
        self.last = nn.Linear(6, 6, bias=False)
        self.last.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).tanh()
        for block in self.blocks:
            x = x + block(x).tanh()
        return self.last(x)


@pytest.fixture(scope="module")
def net() -> altprop.LocalNet:
    torch.manual_seed(0)
    return kept.compile(Tied(), "dfa", example_inputs=(torch.randn(4, 6),))


@pytest.fixture(scope="module")
def seen(net: altprop.LocalNet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a visitor of the page saw."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium here: install it, or name it in the variable CHROMIUM")
    folder = tmp_path_factory.mktemp("inspector")
    measured = net.measure(torch.randn(4, 6), torch.randint(6, (4,)))
    page = net.graph.draw(folder / "net.html", history=net.history, measurement=measured, schedule="order: first, last")
    text = page.read_text("utf-8").replace("<body>", f"<body>{BEFORE}", 1).replace("</body>", f"{VISIT}</body>")
    page.write_text(text, "utf-8")
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"]
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", *offline, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HANG)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stdout[-500:] + done.stderr[-500:]
    result: dict[str, Any] = json.loads(unescape(found[1]))
    return result


def test_the_page_shows_all_there_is(seen: dict[str, Any], net: altprop.LocalNet) -> None:
    assert seen["problems"] == []
    regions, connections = len(net.graph.regions), len(net.graph.connections)
    assert (seen["regions"], seen["errors"], seen["wires"]) == (regions, regions, connections)
    assert seen["tied"] == 1
    assert seen["order"].startswith("forward first")


def test_a_click_lights_up_the_way_of_an_error(seen: dict[str, Any]) -> None:
    assert set(seen["lit"]) == {"e[first]", "e[last]", "loss()"}
    assert seen["head"] == "error neurons of first"
    assert "phi'(h) * d" in seen["details"]


def test_a_key_says_what_colours_mean(seen: dict[str, Any]) -> None:
    for words in ("errors, dense feedback, fixed", "gradient of the loss", "the same weights", "90 degrees and more"):
        assert words in seen["key"]


def test_all_is_shown_on_request(seen: dict[str, Any]) -> None:
    assert all(seen["inside"])


def test_blocks_fold_and_passes_slide(seen: dict[str, Any]) -> None:
    assert seen["folded"] == [2, 2, 4]
    operators, regions, errors, words = seen["second"]
    assert (operators, regions, errors) == (0, seen["regions"], 0)
    assert words.startswith("cut_regions")


def test_the_slider_begins_at_what_was_captured(seen: dict[str, Any], net: altprop.LocalNet) -> None:
    operators, regions, errors, words = seen["first"]
    made = [
        node for node in net.graph.captured.graph.nodes if operator_name(node) in ("mm", "addmm", "relu", "tanh", "add")
    ]
    assert len(made) == 13
    assert (operators, regions, errors) == (len(made) + 1, 0, 0), "the input is a box, too"
    assert words.startswith("capture")
    details, lit = seen["value"]
    assert "regionfirst" in details
    assert lit > 2, "the way of a value lights up"


def test_operators_stand_below_what_they_read(net: altprop.LocalNet) -> None:
    shown = operators(net.graph)
    rows = {node["id"]: node["y"] for node in shown["nodes"]}
    assert all(rows[edge["source"]] < rows[edge["target"]] for edge in shown["edges"])
    product = next(
        node for node in shown["nodes"] if node["details"]["region"] == "first" and node["details"]["weights"]
    )
    assert product["details"]["weights"] == "first.weight"


def test_sizes_have_no_box_and_the_batch_is_called_n() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.transpose(0, 1).reshape(-1, 3)).view(5, -1, 2).mean(0)

    graph = altprop.examine(Rows(), (torch.randn(4, 5, 3),)).graph
    assert graph is not None
    shapes = [node["details"]["shape"] for node in operators(graph)["nodes"]]
    assert all(shapes), "what computes sizes has none"
    assert "(5*N, 3)" in shapes


def test_regions_are_coloured_by_angle(seen: dict[str, Any]) -> None:
    assert all(fill.startswith("hsl(") for fill in seen["fills"])
    assert len(set(seen["fills"])) > 1


def test_a_folded_block_has_a_colour_too(seen: dict[str, Any]) -> None:
    assert len(seen["blocks"]) == 2
    assert all(fill.startswith("hsl(") for fill in seen["blocks"])


def test_a_value_that_goes_past_a_box_bends_around_it(seen: dict[str, Any]) -> None:
    """A straight arrow would lie behind the box."""
    assert seen["past"] == [["first", "blocks.0.two"], ["blocks.0.two", "blocks.1.two"]]


def test_words_say_what_a_region_does() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    layers.extend([nn.Conv2d(4, 4, (1, 3), groups=4), nn.GELU(), nn.Flatten(), nn.Linear(8, 3)])
    graph = altprop.examine(layers, (torch.randn(2, 3, 4, 6),)).graph
    assert graph is not None
    words = [what_it_does(graph.captured, region) for region in graph.regions]
    assert words == ["conv 3x3, batch norm, relu, max pool", "depthwise conv 1x3, gelu", "linear"]


class Joined(nn.Module):
    """A small U-Net: what goes up is joined with what was there before, and a mean leads to the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 4, 3, padding=1)
        self.scores = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x).relu()
        up = self.up(self.down(nn.functional.max_pool2d(first, 2)).relu())
        return self.scores(self.last(torch.cat([up, first], 1)).relu().mean((2, 3)))


class ByHand(nn.Module):
    """A norm that is written by hand, and a value that is rotated: their means and joins are parts of these."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        x = x - x.mean(-1, keepdim=True)
        half, other = x.chunk(2, -1)
        return self.last(torch.cat([-other, half], -1))


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        (
            Joined(),
            torch.randn(2, 1, 4, 4),
            [
                "conv 3x3, relu, max pool",
                "conv 3x3, relu",
                "transposed conv 2x2, cat",
                "conv 3x3, relu, mean",
                "linear",
            ],
        ),
        (
            nn.Sequential(nn.Conv1d(2, 4, 1), nn.GLU(1), nn.Flatten(), nn.Linear(6, 2)),
            torch.randn(2, 2, 3),
            ["conv 1, glu", "linear"],
        ),
        (ByHand(), torch.randn(2, 4), ["linear", "linear"]),
    ],
)
def test_joins_means_and_transposed_convolutions_are_named(
    model: nn.Module, inputs: torch.Tensor, words: list[str]
) -> None:
    graph = altprop.examine(model, (inputs,)).graph
    assert graph is not None
    assert [what_it_does(graph.captured, region) for region in graph.regions] == words


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows, self.last = nn.GRU(3, 2, num_layers=2, batch_first=True), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.rows(x)[0].mean(1))


def test_a_recurrent_layer_is_called_by_its_name() -> None:
    """Its product with the inputs is a part of it."""
    graph = altprop.examine(Reader(), (torch.randn(2, 3, 3),)).graph
    assert graph is not None
    assert [what_it_does(graph.captured, region) for region in graph.regions] == ["GRU, mean", "linear"]


def test_a_picture_says_what_regions_do_and_what_is_tied(net: altprop.LocalNet, tmp_path: Path) -> None:
    svg = net.graph.draw(tmp_path / "net.svg").read_text("utf-8")
    assert "linear, tanh" in svg
    assert "tied to last" in svg
