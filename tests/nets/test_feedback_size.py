"""Feedback that memory cannot hold is refused before it is drawn, with kinds that fit."""

import kept
import pytest
import torch
from torch import nn

import altprop
from altprop.compiler.examine import examine, feedback_size
from altprop.compiler.examine.feedback_size import default_bytes, smaller_kinds


def images() -> tuple[nn.Module, torch.Tensor]:
    """A classifier of images."""
    model = nn.Sequential(
        nn.Conv2d(3, 40, 3), nn.Tanh(), nn.Conv2d(40, 18, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(20)
    )
    x = torch.zeros(2, 3, 8, 8)
    model(x)
    return model, x


def words() -> tuple[nn.Module, torch.Tensor]:
    """A model of language."""
    return nn.Sequential(nn.Embedding(50, 24), nn.Linear(24, 32), nn.Tanh(), nn.Linear(32, 50)), torch.zeros(
        2, 4
    ).long()


@pytest.mark.parametrize("build", [images, words])
def test_sizes_are_those_of_the_net(build) -> None:  # type: ignore[no-untyped-def]
    model, x = build()
    net = kept.compile(model, "dfa", example_inputs=(x,))
    output = net.graph.regions[-1]
    asked = {"": default_bytes(net.graph.regions, output), **smaller_kinds(net.graph.regions, output)}
    assert len(asked) > 1
    for text, size in asked.items():
        made = kept.compile(model, f"dfa({text})", example_inputs=(x,)).feedback.values()
        assert size == sum(p.numel() * p.element_size() for p in made), text


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = images()
    monkeypatch.setattr(feedback_size, "free_memory", lambda device: 40_000)
    with pytest.raises(altprop.CompileError, match=r"the feedback would take .* GiB are free on cpu.*kind='channel'"):
        altprop.compile(model, "dfa", example_inputs=(x,))
    kept.compile(model, "dfa(kind='channel')", example_inputs=(x,))
    kept.compile(model, "bp", example_inputs=(x,))
    monkeypatch.setattr(feedback_size, "free_memory", lambda device: 10)
    with pytest.raises(altprop.CompileError, match="Let fewer regions hear from the output"):
        altprop.compile(model, "dfa", example_inputs=(x,))


def test_examine_says_what_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = images()
    assert "GiB" not in str(altprop.examine(model, (x,)))
    monkeypatch.setattr(examine, "_LARGE_FEEDBACK", 1000)
    assert "warning: direct feedback to every region would take 0.0 GiB. Smaller ones" in str(
        altprop.examine(model, (x,))
    )
    model, x = words()
    assert "kind='position', options={'rank': 16}" in str(altprop.examine(model, (x,)))


def test_free_memory_is_known() -> None:
    assert feedback_size.free_memory(torch.device("cpu")) > 2**20
    assert feedback_size.free_memory(torch.device("meta")) == float("inf")
