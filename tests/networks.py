"""Networks of regions that no model was needed for."""

from altprop.ir.region import Region
from altprop.rules import get
from altprop.rules.plans import Network, make_plan


def region(name: str, reads: tuple[str, ...] = (), block: str = "", output: bool = False) -> Region:
    """A region of five units that makes one value, called as itself."""
    return Region(
        name=name,
        nodes=(name,),
        prologue=(),
        parameters=(f"{name}.weight",),
        sources=reads,
        outputs=(name,),
        ports=(),
        preactivation=name,
        activity=name,
        phi=(),
        tail=(),
        model_outputs=(name,) if output else (),
        shape=("N", 5),
        output_shape=("N", 5) if output else (),
        block=block,
    )


def row(count: int) -> Network:
    """Regions 1 to `count`, each reading the one before."""
    return Network.of([region(str(n), (str(n - 1),) if n > 1 else (), output=n == count) for n in range(1, count + 1)])


def wired(network: Network, plan: str | None, rule: str = "reclra") -> dict[str, list[str]]:
    """For each region the sources that it hears from."""
    made = make_plan(network, lambda _: get(rule), plan)
    return {r.name: [c.source for c in made.incoming(r.name)] for r in network.regions}


def residual() -> Network:
    """stem, two blocks with shortcuts around them, output."""
    return Network.of(
        [
            region("stem"),
            region("a.1", ("stem",), "a"),
            region("a.2", ("a.1", "stem"), "a"),
            region("b.1", ("a.2",), "b"),
            region("b.2", ("b.1", "a.2"), "b"),
            region("out", ("b.2",), output=True),
        ]
    )
