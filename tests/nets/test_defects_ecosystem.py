"""What other tools want of a net: models in wrappers, signatures, tied weights once, averaged gradients."""

import inspect
import json
import multiprocessing
import os
import socket
import time
from collections import UserDict
from pathlib import Path
from typing import Any

import kept
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

import altprop
from altprop.ir.errors import CompileError

X, Y = torch.randn(4, 6), torch.randint(3, (4,))


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


class Wrapper(nn.Module):
    """Hands on whatever it is given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.inner(*args, **kwargs)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, first: torch.Tensor, second: torch.Tensor | None = None, **more: Any) -> torch.Tensor:
        hidden = self.a(first)
        hidden = hidden if second is None else hidden + self.a(second)
        return self.out(hidden.tanh() * more.get("scale", 1.0))


class Tied(nn.Module):
    """Reads its embedding out with its own weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.read = nn.Linear(5, 7, bias=False)
        self.read.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.read(self.embed(tokens).tanh())


@pytest.fixture(scope="module")
def net() -> altprop.LocalNet:
    return altprop.compile(mlp(), "dfa", example_inputs=(X,))


def test_defect_30_arguments_that_are_handed_on() -> None:
    wrapped = Wrapper(mlp())
    net = altprop.compile(wrapped, "bp", example_inputs=(X,))
    assert net.explain()["inner.0.weight"].region == "inner.0"
    assert "forward" not in vars(wrapped)
    assert net(torch.randn(9, 6)).shape == (9, 3)  # any batch


@pytest.mark.parametrize("given", ["position", "both", "names"])
def test_defect_30_several_arguments_are_handed_on(given: str) -> None:
    args, kwargs = {
        "position": ((X, 2 * X), {}),
        "both": ((X,), {"second": 2 * X, "scale": 2 * torch.ones(4, 1)}),
        "names": ((), {"first": X, "second": 2 * X}),
    }[given]
    wrapped = Wrapper(Two())
    net = altprop.compile(wrapped, "bp", example_inputs=args, example_kwargs=kwargs)
    torch.nn.functional.cross_entropy(net(*args, **kwargs), Y).backward()
    got = {name: p.grad for name, p in wrapped.named_parameters()}
    wrapped.zero_grad()
    torch.nn.functional.cross_entropy(wrapped(*args, **kwargs), Y).backward()
    for name, parameter in wrapped.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, msg=name)


def test_defect_30_what_speeds_a_model_up_is_taken_off(net: altprop.LocalNet) -> None:
    model = mlp()
    fast = torch.compile(model, backend="eager")
    assert altprop.compile(fast, "dfa", example_inputs=(X,)).model is model
    assert altprop.compile(net, "fa", example_inputs=(X,)).model is net.model
    assert altprop.examine(fast, (X,)).ok
    assert altprop.capture(fast, X).model is model


def test_defect_30_what_does_more_is_refused_in_a_sentence() -> None:
    with pytest.raises(CompileError, match=r"DataParallel runs a model on several devices: compile the model inside"):
        altprop.compile(nn.DataParallel(mlp()), example_inputs=(X,))
    inside = nn.Sequential(torch.compile(nn.Linear(6, 5), backend="eager"), nn.Tanh(), nn.Linear(5, 3))
    with pytest.raises(CompileError, match=r'module "0" is wrapped by torch\.compile'):
        altprop.compile(inside, example_inputs=(X,))
    assert "wrapped by torch.compile" in str(altprop.examine(inside, (X,)))


def test_defect_32_a_mapping_that_is_no_dict_gives_inputs_by_name() -> None:
    two = kept.compile(Two(), "dfa", example_kwargs={"first": X, "second": X})
    names = {"first": X, "second": X}
    assert two.backward(UserDict(names), Y) == two.backward(names, Y)


def test_defect_35_a_net_has_the_signature_of_its_model(net: altprop.LocalNet) -> None:
    two = altprop.compile(Two())
    assert list(inspect.signature(two.forward).parameters) == ["first", "second", "more"]
    assert list(inspect.signature(net.forward).parameters) == ["input"]
    assert "Runs the model's forward" in str(inspect.getdoc(net.forward))


def test_defect_35_tied_weights_are_saved_once(tmp_path: Path) -> None:
    tokens = torch.randint(7, (4, 3))
    first, second = (altprop.compile(Tied(), "dfa", example_inputs=(tokens,)) for _ in range(2))
    state = first.state_dict()
    assert "model.embed.weight" in state
    assert "model.read.weight" not in state
    save_file(state, tmp_path / "net.safetensors")
    second.load_state_dict(load_file(tmp_path / "net.safetensors"))
    assert torch.equal(first(tokens), second(tokens))
    assert second.model.read.weight is second.model.embed.weight

    holder = nn.Sequential(second)  # as a LightningModule holds one
    assert "0.model.read.weight" not in holder.state_dict()
    holder.load_state_dict(nn.Sequential(first).state_dict())
    assert "read.weight" in first.model.state_dict()  # the model keeps its own keys


class Powers(nn.Module):
    """Raises what it counted to a power in place, as graph layers do with degrees."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        counted = (x > 0).float().sum(1, keepdim=True) + 1
        return self.a(x) * counted.pow_(-0.5)


def test_powers_in_place_are_powers() -> None:
    net = altprop.compile(Powers(), "bp", example_inputs=(X,), optimizer=altprop.optim.SGD(lr=0.1))
    wanted = nn.functional.cross_entropy(net.model(X), Y)
    torch.testing.assert_close(net.step(X, Y), wanted.detach())


def test_a_net_becomes_a_folder_with_a_card(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="the Hub's mixin is in huggingface_hub: the extra `hub`")
    tokens = torch.randint(7, (4, 3))
    kinds = {"optimizer": altprop.optim.SGD(lr=0.1, momentum=0.9), "example_inputs": (tokens,)}
    net = altprop.compile(Tied(), "dfa", seed=3, **kinds)
    net.step(tokens, tokens)
    folder = net.save_pretrained(tmp_path / "net")
    card = (folder / "README.md").read_text()
    assert str(net.explain()) in card
    assert "library_name: altprop" in card
    assert json.loads((folder / "config.json").read_text())["seed"] == 3
    Tied().load_state_dict(load_file(folder / "model.safetensors"), strict=False)

    again = altprop.from_pretrained(folder, Tied(), **kinds)
    assert str(again.plan) == str(net.plan)
    assert torch.equal(net.step(tokens, tokens), again.step(tokens, tokens))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())
    (folder / "plan.json").unlink()
    with pytest.raises(CompileError, match=r"holds no plan\.json: net\.save_pretrained writes it"):
        altprop.from_pretrained(folder, Tied(), **kinds)


def test_a_net_is_uploaded_with_its_card(net: altprop.LocalNet, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the Hub's mixin is in huggingface_hub: the extra `hub`")
    sent: dict[str, str] = {}

    class Service:
        def __init__(self, **options: Any) -> None:
            pass

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            return type("Repository", (), {"repo_id": repo_id})

        def upload_folder(self, repo_id: str, folder_path: str, **options: Any) -> str:
            sent.update({path.name: path.read_bytes().decode("latin-1") for path in Path(folder_path).iterdir()})
            return f"https://huggingface.co/{repo_id}/commit/1"

    monkeypatch.setattr(hub.hub_mixin, "HfApi", Service)
    assert net.push_to_hub("me/net") == "https://huggingface.co/me/net/commit/1"
    assert set(sent) == {"model.safetensors", "altprop.safetensors", "plan.json", "config.json", "README.md"}
    assert 'altprop.from_pretrained("me/net", model' in sent["README.md"]


def as_a_rank(rank: int, variables: dict[str, str], net: altprop.LocalNet, folder: Path) -> None:
    """Trains on a half of the batch: by `net.backward`, and by DistributedDataParallel."""
    os.environ.update(variables)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    half = slice(2 * rank, 2 * rank + 2)
    with pytest.warns(UserWarning, match=r"net\.average_gradients\(\) before the optimizer's step"):
        net.backward(X[half], Y[half])
    net.average_gradients()
    found = {name: p.grad.clone() for name, p in net.model.named_parameters() if p.grad is not None}
    net.zero_grad()
    net.backward(X[half], Y[half])  # says nothing a second time
    net.zero_grad()
    replica = nn.parallel.DistributedDataParallel(net)
    torch.nn.functional.cross_entropy(replica(X[half]), Y[half]).backward()
    also = {name: p.grad.clone() for name, p in net.model.named_parameters() if p.grad is not None}
    torch.save((found, also), folder / f"{rank}.pt")
    while not (folder / "1.pt").exists():  # rank 0 holds the store that the other one may still ask
        time.sleep(0.01)
    os._exit(0)  # a fork has none of the threads that an orderly end would wait for


def test_defect_40_gradients_of_several_processes_are_averaged(net: altprop.LocalNet, tmp_path: Path) -> None:
    net.zero_grad()
    net.backward(X, Y)
    wanted = {name: p.grad.clone() for name, p in net.model.named_parameters() if p.grad is not None}
    net.zero_grad()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "GLOO_SOCKET_IFNAME": "lo"}
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=as_a_rank, args=(rank, variables, net, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    for rank in range(2):
        for got in torch.load(tmp_path / f"{rank}.pt"):
            assert set(got) == set(wanted)
            for name, gradient in got.items():
                torch.testing.assert_close(gradient, wanted[name], msg=name)


def test_defect_40_averaging_needs_processes(net: altprop.LocalNet) -> None:
    with pytest.raises(CompileError, match=r"torch\.distributed has not been started"):
        net.average_gradients()
