"""Draws docs/pathway.svg, the picture in the README: `python docs/draw_pathway.py`.

One network of four layers twice: above, how backpropagation teaches it; below, how an error pathway does.
"""

from pathlib import Path

WIDTH, HEIGHT = 860, 446
LEFT, STEP, BOX_WIDTH, BOX_HEIGHT = 90, 175, 108, 44
STYLE = """
  text { font: 14px sans-serif; fill: #1f2430 }
  .small { font-size: 12px; fill: #5a6272 }
  .head { font-size: 15px; font-weight: bold }
  .layer { fill: #eef3fb; stroke: #3b6ea8 }
  .neuron { fill: #fdece6; stroke: #b5432a }
  .loss { fill: #b5432a; stroke: #b5432a }
  .white { fill: white; font-weight: bold }
  .forward { stroke: #4a5568; fill: none; marker-end: url(#grey) }
  .error { stroke: #b5432a; fill: none; stroke-width: 1.6; marker-end: url(#red) }
"""
LAYERS = ("layer 1", "layer 2", "layer 3", "output")


def words(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{text}</text>'


def path(points: str, kind: str) -> str:
    return f'<path d="{points}" class="{kind}"/>'


def centre(index: int) -> float:
    """Middle of a layer."""
    return LEFT + index * STEP + BOX_WIDTH / 2


def network(y: float) -> list[str]:
    """Four layers in a row, what goes in, and the loss."""
    middle = y + BOX_HEIGHT / 2
    parts = [words(24, middle + 5, "input"), path(f"M62,{middle:g} H{LEFT - 6}", "forward")]
    for index, name in enumerate(LAYERS):
        x = LEFT + index * STEP
        frame = f'x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"'
        parts.append(f'<rect {frame} class="layer"/>')
        parts.append(words(x + BOX_WIDTH / 2, middle + 5, name, "", "middle"))
        parts.append(path(f"M{x + BOX_WIDTH:g},{middle:g} h{STEP - BOX_WIDTH - 6}", "forward"))
    x = LEFT + len(LAYERS) * STEP
    parts.append(f'<rect x="{x:g}" y="{y + 6:g}" width="56" height="32" rx="6" class="loss"/>')
    return [*parts, words(x + 28, middle + 5, "loss", "white", "middle")]


def backwards(y: float) -> list[str]:
    """The error goes back through every layer, one after the other."""
    above = y - 24
    parts = [path(f"M{LEFT + 4 * STEP + 28:g},{y + 6:g} V{above:g} H{centre(3) + 6:g}", "error")]
    for index in (3, 2, 1):
        parts.append(path(f"M{centre(index) - 6:g},{above:g} H{centre(index - 1) + 6:g}", "error"))
        between = (centre(index) + centre(index - 1)) / 2
        parts.append(words(between, above - 7, f"W{index + 1} transposed", "small", "middle"))
    return parts + [path(f"M{centre(index):g},{above:g} V{y - 6:g}", "error") for index in range(4)]


def straight(y: float) -> list[str]:
    """The error of the output goes to each layer by a connection of its own."""
    neurons = y - 40
    parts = [path(f"M{LEFT + 4 * STEP + 28:g},{y + 6:g} V{neurons:g} H{centre(3) + 22:g}", "error")]
    for index in range(4):
        x = centre(index)
        parts.append(f'<circle cx="{x:g}" cy="{neurons:g}" r="17" class="neuron"/>')
        parts.append(words(x, neurons + 5, f"e{index + 1}", "", "middle"))
        parts.append(path(f"M{x:g},{neurons + 17:g} V{y - 6:g}", "error"))
        if index < 3:
            height = neurons - 36 - 22 * (2 - index)
            start, stop = centre(3) - 8 + 8 * (2 - index), x
            parts.append(path(f"M{start:g},{neurons - 17:g} V{height:g} H{stop:g} V{neurons - 23:g}", "error"))
            parts.append(words(x + 8, height + 15, f"B{index + 1}", "small"))
    return parts


def marker(name: str, colour: str) -> str:
    shape = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
    return f'<marker id="{name}" {shape}><path d="M0,0 L8,4 L0,8 z" fill="{colour}"/></marker>'


def picture() -> str:
    """Returns the whole picture as SVG text."""
    parts = [
        words(24, 28, "Backpropagation: the error goes back through every layer, one after the other", "head"),
        *network(98),
        *backwards(98),
        words(24, 200, "An error pathway (here DFA): each layer hears the error by a connection of its own", "head"),
        *network(346),
        *straight(346),
        words(
            24,
            411,
            "Grey: activities. Red: errors. Circles: error neurons. B1 to B3: feedback matrices, drawn at",
            "small",
        ),
        words(
            24, 428, "random. No layer waits for the layer behind it, and none needs the weights of another.", "small"
        ),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}">'
    defs = f"<defs>{marker('grey', '#4a5568')}{marker('red', '#b5432a')}</defs>"
    paper = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", defs, paper, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("pathway.svg").write_text(picture(), "utf-8")
