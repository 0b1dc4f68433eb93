"""Nets in other people's training loops: transformers' Trainer, Lightning, accelerate, PEFT, timm, torch_geometric."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import altprop

# Their own warnings are theirs.
pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore")]

CAUSAL = {"vocab_size": 50, "n_positions": 16, "n_layer": 2, "n_embd": 32, "n_head": 2, "use_cache": False}
CAUSAL |= {"bos_token_id": 0, "eos_token_id": 0}


class Texts(Dataset):
    """Sentences in which each token follows from the one before it; one column that no model takes."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens = (index + torch.arange(8)) % 50
        return {"input_ids": tokens, "labels": tokens, "name": f"sentence {index}"}


class Images(Dataset):
    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, Any]:
        label = index % 2
        noise = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(index))
        return {"pixel_values": noise / 4 + label, "labels": label}


def next_token(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs["logits"][:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def right_class(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs["logits"], labels)


def gpt2() -> tuple[nn.Module, Any, Any]:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**CAUSAL)), Texts(), next_token


def vit() -> tuple[nn.Module, Any, Any]:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=2)
    return transformers.ViTForImageClassification(config), Images(), right_class


def trainer(make: Any, folder: Path) -> Any:
    """A Trainer over a net that is compiled anew, and thus begins with the same weights."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate: pip install accelerate")
    model, data, loss = make()
    first = {key: value for key, value in data[0].items() if isinstance(value, torch.Tensor) and key != "labels"}
    examples = {key: torch.stack([value, value]) for key, value in first.items()}
    net = altprop.compile(model, "dfa", example_kwargs=examples)
    options = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "max_steps": 6, "save_steps": 3}
    options |= {"learning_rate": 1e-2, "label_names": ["labels"], "report_to": [], "use_cpu": True}
    settings = transformers.TrainingArguments(str(folder), disable_tqdm=True, **options)
    return transformers.Trainer(net, settings, train_dataset=data, eval_dataset=data, compute_loss_func=loss)


@pytest.mark.parametrize("make", [gpt2, vit])
def test_defect_35_the_trainer_trains_evaluates_saves_and_resumes(make: Any, tmp_path: Path) -> None:
    one = trainer(make, tmp_path)
    before = one.evaluate()["eval_loss"]
    one.train()
    assert one.evaluate()["eval_loss"] < 0.96 * before
    two = trainer(make, tmp_path)
    two.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    state, again = one.model.state_dict(), two.model.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in state.items())


def make_module(lightning: Any) -> Any:
    """A LightningModule; within one net, as any other part."""

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
            self.net = altprop.compile(model, "dfa", example_inputs=(torch.randn(4, 6),))

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.net.param_groups(lr=0.01))

    return Classifier()


def test_lightning_fits_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    inputs = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(inputs, (inputs.sum(1) > 0).long()), batch_size=8)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}

    def fit(module: Any, epochs: int, start: str | None = None) -> Any:
        one = lightning.Trainer(max_epochs=epochs, default_root_dir=tmp_path, **options)
        one.fit(module, loader, ckpt_path=start)
        return one

    whole = make_module(lightning)
    fit(whole, 4)
    half = make_module(lightning)
    fit(half, 2).save_checkpoint(tmp_path / "half.ckpt")
    rest = make_module(lightning)
    fit(rest, 4, str(tmp_path / "half.ckpt"))
    assert all(torch.equal(value, rest.state_dict()[key]) for key, value in whole.state_dict().items())
    assert (whole.net(inputs).argmax(1) == (inputs.sum(1) > 0)).float().mean() > 0.8


def test_defect_30_a_peft_model_learns_in_its_adapters_alone() -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model, data, loss = gpt2()
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["c_attn"]))
    tokens = torch.stack([data[index]["input_ids"] for index in range(4)])
    net = altprop.compile(adapted, "dfa", example_kwargs={"input_ids": tokens})
    loss(net(input_ids=tokens), tokens).backward()
    moved = {name for name, p in adapted.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved
    assert all("lora_" in name for name in moved)
    assert {row.how for row in net.explain().rows if "lora_" not in row.parameter} == {"frozen"}


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_models_of_timm_learn(name: str) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **({"img_size": 32} if "vit" in name else {}))
    images, labels = torch.randn(4, 3, 32, 32), torch.randint(5, (4,))
    net = altprop.compile(model, "dfa", example_inputs=(images,), optimizer=altprop.optim.Adam(lr=1e-3))
    losses = [float(net.step(images, labels)) for _ in range(8)]
    assert losses[-1] < losses[0]


def test_accelerate_prepares_a_net() -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    images, labels = torch.randn(32, 6), torch.randint(2, (32,))
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
    net = altprop.compile(model, "reclra", example_inputs=(images[:4],))
    accelerator = accelerate.Accelerator(cpu=True)
    loader = DataLoader(TensorDataset(images, labels), batch_size=8)
    net, optimizer, loader = accelerator.prepare(net, torch.optim.Adam(net.param_groups(lr=0.01)), loader)
    before = model[0].weight.detach().clone()
    for batch, target in loader:
        optimizer.zero_grad()
        accelerator.backward(nn.functional.cross_entropy(net(batch), target))
        optimizer.step()
    assert not torch.equal(before, model[0].weight)


def test_graphs_of_torch_geometric_learn() -> None:
    geometric = pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    torch.manual_seed(0)
    nodes, edges = torch.randn(20, 8), torch.randint(20, (2, 60))
    labels = (nodes.sum(1) > 0).long()
    model = geometric.nn.GCN(8, 16, num_layers=2, out_channels=2)
    net = altprop.compile(model, "dfa", example_inputs=(nodes, edges), optimizer=altprop.optim.Adam(lr=0.01))
    losses = [float(net.step((nodes, edges), labels)) for _ in range(20)]
    assert losses[-1] < losses[0]
