"""Draws docs/flow.svg, the picture in architecture.md: `python docs/draw_flow.py`.

On the left the stations of a compilation, each arrow named by what makes the step; on the right a network
of three regions before and after its error pathway is wired.
"""

import textwrap
from pathlib import Path

from altprop.compiler.pass_order import ORDER
from altprop.passes.base import name_of
from altprop.passes.tune.tuning_order import order

WIDTH, HEIGHT = 980, 912
BOX_WIDTH, BOX_HEIGHT = 230, 44
LEFT = 20
STYLE = """
  text { font: 14px sans-serif; fill: #1f2430 }
  .small { font-size: 12px; fill: #5a6272 }
  .head { font-size: 15px; font-weight: bold }
  .name { font: 13px monospace }
  .data { fill: #eef3fb; stroke: #4a6fa5 }
  .run { fill: #eef7ee; stroke: #4c8a57 }
  .neuron { fill: #fdf0ec; stroke: #c0563b }
  .arrow { stroke: #5a6272; fill: none; marker-end: url(#grey) }
  .error { stroke: #c0563b; fill: none; marker-end: url(#red) }
"""
# what a pass is given, what that is, and how the pass goes about it
WORDS = {
    "capture": ("nn.Module", "yours, unchanged", "torch.export, batch left symbolic"),
    "cut_regions": ("forward graph", "Core ATen operators", "one parametric operator a region"),
    "insert_error_neurons": ("regions", "h, phi, z, parameters", "where the plan asks for them"),
    "connect_skip_errors": ("graph with error neurons", "one e beside each z", "as the plan draws them"),
    "linearize_regions": ("wired graph", "who sends errors to whom", "each region by itself, op by op"),
    "insert_feedback": ("linearized graph", "local products by region", "from the seed and the name"),
    "derive_updates": ("graph with feedback", "what stands on each wire", "trace rule and local VJP"),
    "flatten": ("graph with updates", "how each parameter moves", "forward, loss and updates in one line"),
}
AFTER = ("add_optimizer", "cleanup")  # they change the step itself


def steps() -> list[tuple[str, str, str, str]]:
    """Station, what it is, and what makes the next one of it, in the order of the passes."""
    passes = [name for name in map(name_of, ORDER) if name not in AFTER]
    makers = {"capture": "compiler/capture"} | {name: f"passes/{name}" for name in passes}
    return [(*WORDS[name][:2], maker, WORDS[name][2]) for name, maker in makers.items()] + [
        ("the step", "one flat program", "", "")
    ]


STATIONS = steps()


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{words}</text>'


def box(x: float, y: float, title: str, note: str, kind: str = "data", width: float = BOX_WIDTH) -> str:
    middle = x + width / 2
    frame = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{BOX_HEIGHT}" rx="6" class="{kind}"/>'
    return "\n".join([frame, text(middle, y + 19, title, "", "middle"), text(middle, y + 36, note, "small", "middle")])


def arrow(points: str, kind: str = "arrow") -> str:
    return f'<path d="{points}" class="{kind}"/>'


def stations() -> list[str]:
    """The column of stations, from the module down to the step."""
    parts, gap = [], 42
    for index, (title, note, maker, how) in enumerate(STATIONS):
        y = 44 + index * (BOX_HEIGHT + gap)
        parts.append(box(LEFT, y, title, note))
        if maker:
            bottom = y + BOX_HEIGHT
            parts.append(arrow(f"M{LEFT + 24},{bottom} v{gap - 4}"))
            parts.append(text(LEFT + 38, bottom + 18, maker, "name"))
            parts.append(text(LEFT + 38, bottom + 33, how, "small"))
    return parts


def ends() -> list[str]:
    """What becomes of the step."""
    y = 44 + (len(STATIONS) - 1) * (BOX_HEIGHT + 42)
    middle, right = y + BOX_HEIGHT / 2, LEFT + BOX_WIDTH
    return [
        arrow(f"M{right},{middle:g} h50"),
        box(right + 56, y, "runtime", "runs it and keeps its state", "run"),
        arrow(f"M{LEFT + 180},{y + BOX_HEIGHT} v22 h{right + 50 - LEFT - 180}"),
        box(right + 56, y + 58, "files", "text, JSON, pictures, ONNX, .pt2", "run"),
    ]


def tuning() -> list[str]:
    """The passes that tune the step, in their order, below it."""
    names = list(dict.fromkeys(one.name.replace("_", " ") for one in order()))
    lines = textwrap.wrap(f"tuned by {', '.join(names)}", 60)
    return [text(LEFT, HEIGHT - 14 * (len(lines) - index), line, "small") for index, line in enumerate(lines)]


def chain(y: float) -> list[str]:
    """Three regions in a row, with the forward edges between them."""
    parts = [text(LEFT + 385, y + 27, "x", "name")]
    for index, name in enumerate(("region 1", "region 2", "output")):
        x = LEFT + 410 + index * 180
        parts += [arrow(f"M{x - (12 if not index else 66)},{y + 22:g} h{8 if not index else 62}")]
        parts.append(box(x, y, name, ("z1 = phi(h1)", "z2 = phi(h2)", "z3")[index], "data", 114))
    return [*parts, arrow(f"M{LEFT + 884},{y + 22:g} h26"), text(LEFT + 916, y + 27, "loss", "name")]


def neurons(y: float) -> list[str]:
    """The same row with error neurons above it and skip-error connections that start at the output."""
    centres = [LEFT + 467 + index * 180 for index in range(3)]
    parts = []
    for index, x in enumerate(centres):
        parts.append(f'<circle cx="{x}" cy="{y - 60:g}" r="19" class="neuron"/>')
        parts.append(text(x, y - 55, f"e{index + 1}", "name", "middle"))
        parts.append(arrow(f"M{x},{y - 41:g} v35", "error"))
        parts.append(text(x + 8, y - 18, "update", "small"))
    last = centres[2]
    parts.append(arrow(f"M{LEFT + 934},{y + 8:g} V{y - 60:g} H{last + 25}", "error"))
    parts.append(arrow(f"M{last - 19},{y - 60:g} H{centres[1] + 25}", "error"))
    parts.append(text((last + centres[1]) / 2 + 3, y - 67, "E(3-&gt;2)", "name", "middle"))
    parts.append(arrow(f"M{last},{y - 79:g} v-26 H{centres[0]} v20", "error"))
    parts.append(text(centres[1] - 40, y - 112, "E(3-&gt;1), past region 2", "name", "middle"))
    return parts


def marker(name: str, colour: str) -> str:
    shape = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"'
    return f'<marker id="{name}" {shape}><path d="M0,0 L8,4 L0,8 z" fill="{colour}"/></marker>'


def picture() -> str:
    """Returns the whole picture as SVG text."""
    x = LEFT + 385
    parts = [
        text(LEFT, 26, "What becomes of a model", "head"),
        *stations(),
        *ends(),
        *tuning(),
        text(x, 26, "Regions, as cut", "head"),
        *chain(48),
        text(x, 160, "The same, wired by the plan &quot;direct&quot;", "head"),
        *chain(318),
        *neurons(318),
        text(x, 400, "Grey arrows carry activities, red ones errors.", "small"),
        text(
            x,
            420,
            "A region's update needs its own input, its h and its e: nothing waits for region 2",
            "small",
        ),
        text(x, 436, "before region 1 may learn.", "small"),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}">'
    defs = f"<defs>{marker('grey', '#5a6272')}{marker('red', '#c0563b')}</defs>"
    paper = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", defs, paper, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("flow.svg").write_text(picture(), "utf-8")
