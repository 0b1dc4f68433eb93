"""Numbers that were wrong without a word: errors of models that end in an activation."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import altprop

pytestmark = pytest.mark.third

RULES = ("dfa", "dkp", "reclra", "sdfa(distribution='normal')", "drtp", "local_loss(beta=0.5)", "ddtp")


class Into(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def classes(*ending, width=10):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(20, 14), nn.Tanh(), nn.Linear(14, 12), nn.Tanh(), nn.Linear(12, width), *ending
    ).double()


def gradients(model, rule, loss, x, y):
    net = altprop.compile(copy.deepcopy(model), rule, example_inputs=(x,), loss=loss)
    made = net(x)
    loss(made, y).backward()
    every = {**dict(net.model.named_parameters()), **dict(net.feedback.items())}
    return {name: p.grad.clone() for name, p in every.items() if p.grad is not None}


def assert_alike(one, other):
    assert {name.split("->")[0] for name in one} == {name.split("->")[0] for name in other}
    for (name, left), right in zip(one.items(), other.values(), strict=True):
        torch.testing.assert_close(left.flatten(), right.flatten(), rtol=1e-7, atol=1e-10, msg=name)


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(0)
    return torch.randn(6, 20, dtype=torch.float64), torch.randint(10, (6,))


class TestEndings:
    """Row 11: both spellings of one network train alike."""

    @pytest.mark.parametrize("rule", RULES)
    def test_defect_11_log_softmax_hears_the_output(self, rule, batch):
        x, y = batch
        ours = gradients(classes(nn.LogSoftmax(1)), rule, nn.NLLLoss(), x, y)
        assert_alike(ours, gradients(classes(), rule, nn.CrossEntropyLoss(), x, y))

    @pytest.mark.parametrize("rule", ["dfa", "reclra", "drtp"])
    def test_defect_11_sigmoid_hears_the_output(self, rule, batch):
        x, y = batch[0], torch.randint(2, (6, 10)).double()
        ours = gradients(classes(nn.Sigmoid()), rule, nn.BCELoss(), x, y)
        assert_alike(ours, gradients(classes(), rule, nn.BCEWithLogitsLoss(), x, y))

    @pytest.mark.parametrize(
        "ending",
        [
            lambda h: torch.log(torch.softmax(h, 1)),
            lambda h: h - torch.logsumexp(h, 1, keepdim=True),
            lambda h: (h.exp() / h.exp().sum(1, keepdim=True)).log(),
        ],
    )
    def test_defect_11_however_the_activation_is_written(self, ending, batch):
        x, y = batch
        ours = gradients(classes(Into(ending)), "dfa", nn.NLLLoss(), x, y)
        assert_alike(ours, gradients(classes(), "dfa", nn.CrossEntropyLoss(), x, y))

    def test_defect_11_behind_pooling_the_error_is_that_of_the_pooled_units(self):
        torch.manual_seed(0)
        x, y = torch.randn(4, 3, 6, 6, dtype=torch.float64), torch.randint(10, (4,))

        def images(*ending):
            torch.manual_seed(1)
            features = nn.Conv2d(3, 5, 3), nn.Tanh(), nn.Conv2d(5, 10, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
            return nn.Sequential(*features, nn.Flatten(), *ending).double()

        ours = gradients(images(nn.LogSoftmax(1)), "dfa", nn.NLLLoss(), x, y)
        assert_alike(ours, gradients(images(), "dfa", nn.CrossEntropyLoss(), x, y))

    def test_defect_11_a_target_is_moved_as_the_output_is(self, batch):
        x, y = batch[0], torch.randint(2, (6, 5, 2)).double()
        turned = Into(lambda h: torch.sigmoid(h).view(-1, 2, 5).transpose(1, 2))
        ours = gradients(classes(turned), "drtp", nn.BCELoss(), x, y)
        flat = gradients(classes(nn.Sigmoid()), "drtp", nn.BCELoss(), x, y.transpose(1, 2).reshape(6, 10))
        for name in ("0.weight", "2.weight"):  # a mean over five positions as well, in a rule that sends no error
            torch.testing.assert_close(ours[name] * 5, flat[name])

    def test_defect_11_a_temperature_is_no_activation(self, batch):
        x, y = batch
        ours = gradients(classes(Into(lambda h: functional.log_softmax(h / 3, 1))), "dfa", nn.NLLLoss(), x, y)
        assert_alike(ours, gradients(classes(Into(lambda h: h / 3)), "dfa", nn.CrossEntropyLoss(), x, y))

    def test_defect_11_the_option_sends_what_the_loss_says_at_the_output(self, batch):
        x, y = batch
        there = gradients(classes(nn.LogSoftmax(1)), "dfa(options={'at': 'output'})", nn.NLLLoss(), x, y)
        usual = gradients(classes(nn.LogSoftmax(1)), "dfa", nn.NLLLoss(), x, y)
        net = altprop.compile(classes(nn.LogSoftmax(1)), "dfa", example_inputs=(x,))
        b = net.feedback["4->2"].detach()
        h = torch.tanh(net.model[0](x)), None
        z = torch.tanh(net.model[2](h[0])).detach()
        e = (-functional.one_hot(y, 10).double() @ b) * (1 - z * z)
        torch.testing.assert_close(there["2.weight"], e.t() @ h[0].detach() / 6)
        assert not torch.allclose(there["2.weight"], usual["2.weight"])

    def test_defect_11_an_unknown_place_is_refused(self, batch):
        with pytest.raises(altprop.PlanError, match='at="top"; the error of an output is taken at its "preactivation"'):
            altprop.compile(classes(), "dfa(options={'at': 'top'})", example_inputs=(batch[0],))

    def test_defect_11_scores_beside_features_send_both(self, batch):
        """The loss reads the scores; the first of what the model returns is made from them."""
        x, y = batch
        both = classes(Into(lambda h: (torch.softmax(h, 1), h)))
        ours = gradients(both, "dfa", lambda output, target: functional.cross_entropy(output[1], target), x, y)
        assert_alike(ours, gradients(classes(), "dfa", nn.CrossEntropyLoss(), x, y))

    def test_defect_11_linear_endings_stay_as_they_were(self, batch):
        """What ends in no activation sends the loss's gradient itself."""
        x, _ = batch
        for ending in ([], [Into(lambda h: h.view(-1, 2, 5))], [nn.BatchNorm1d(10, affine=False)]):
            net = altprop.compile(classes(*ending), "dfa", example_inputs=(x,), loss="mse")
            read = {key[0] for update in net.graph.updates.values() for key in update.inputs.values()}
            assert "loss_gradient" in read
            assert "output_error" not in read


class Product(nn.Module):
    """A product with a matrix that has its inputs first."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / 3)

    def forward(self, x):
        return x @ self.weight


class TestMirrors:
    """Row 10: noise goes through an operator with weights alone, whatever stands behind it."""

    def test_defect_10_the_mean_of_a_mirror_is_the_weight_behind_any_norm(self):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 2, 1), nn.Tanh(),
            nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Tanh(),
            nn.ConvTranspose2d(3, 2, 2, stride=2), nn.Tanh(), nn.Flatten(),
            nn.Linear(72, 6), nn.LayerNorm(6), nn.Tanh(),
            Product(6, 5), nn.BatchNorm1d(5), nn.Tanh(),
            nn.utils.parametrizations.weight_norm(nn.Linear(5, 7)), nn.Tanh(),
            nn.Linear(7, 4),
        ).double()  # fmt: skip
        x, labels = torch.randn(4000, 1, 4, 4, dtype=torch.float64), torch.randint(4, (4000,))
        net = altprop.compile(model, "wm(noise=0.5, decay=0.25)", example_inputs=(x[:4],))
        net.backward(x, labels)
        assert len(net.feedback) == 7
        for name, feedback in net.feedback.items():
            layer = model.get_submodule(name.partition(".")[0].partition("-")[0])
            magnitude = name.endswith("original0")  # that of a weight norm; the direction's mirror is the whole weight
            weight = (layer.parametrizations.weight.original0 if magnitude else layer.weight).detach()
            assert feedback.grad is not None
            assert feedback.grad.shape == weight.shape
            expected = 0.25 * (feedback - weight).detach()
            assert float((feedback.grad - expected).abs().max()) < 0.06 * float(weight.abs().max()), name

    def test_defect_10_a_mirror_behind_a_norm_keeps_its_weights(self):
        torch.manual_seed(0)
        x, y = torch.randn(64, 20), torch.randint(10, (64,))
        model = nn.Sequential(
            nn.Linear(20, 14), nn.Tanh(), nn.Linear(14, 14), nn.BatchNorm1d(14), nn.Tanh(), nn.Linear(14, 10)
        )
        net = altprop.compile(model, "wm", example_inputs=(x,), optimizer=altprop.optim.SGD(0.1))
        for _ in range(100):
            net.step(x, y)
        feedback, weight = net.feedback["2->0"].detach(), model[2].weight.detach()
        assert torch.cosine_similarity(feedback.flatten(), weight.flatten(), 0) > 0.9
        assert 0.8 < float(feedback.norm() / weight.norm()) < 1.3
