"""Recipes: every rule's settings, as data, and how a run takes them."""

import pytest
from choose import rules_of_ours

import altprop
from altprop.rules import Recipe
from altprop.training import RunConfig, make_config
from altprop.training.build import build_optimizer
from altprop.training.run import learning_rate


@pytest.mark.parametrize("name", rules_of_ours())
def test_a_run_takes_the_recipe_of_its_rule(name: str) -> None:
    recipe = altprop.rules.get(name).about.recipe
    config = make_config(flags={"rule": name})
    for key, value in recipe.settings().items():
        assert getattr(config, key) == value
    assert build_optimizer(config).lr == recipe.lr
    assert f"[{recipe}" in altprop.rules.available()[name]
    assert str(recipe).startswith(f"{recipe.optimizer}, lr={recipe.lr:g}")


def test_recipes_say_what_feedback_is_drawn_from() -> None:
    lines = altprop.rules.available()
    assert lines["dkp"].endswith("[adamw, lr=0.003, cosine; feedback normal, scale=1]")
    assert lines["sdfa"].endswith("; feedback balanced, scale=1]")
    assert lines["usf"].endswith("; feedback xavier_normal, scale=1]")
    assert "; feedback" not in lines["bp"] + lines["local_loss"] + lines["dtp"]


def test_what_the_user_sets_wins() -> None:
    recipe = altprop.rules.get("dfa").about.recipe
    assert recipe.lr_schedule == "cosine"
    config = make_config(flags={"rule": "dfa(scale=0.5)", "lr": 0.5})
    assert (config.lr, config.lr_schedule) == (0.5, "cosine")
    # Another optimizer has another right rate: nothing of the recipe is taken.
    config = make_config(flags={"rule": "dfa", "optimizer": "sgd"})
    assert (config.lr, config.lr_schedule) == (1e-3, "constant")


def test_muon_takes_the_rate_of_adamw() -> None:
    made = build_optimizer(make_config(flags={"optimizer": "muon", "lr": 2e-3}))
    assert made == altprop.optim.Muon(lr=2e-3, adjust_lr_fn="match_rms_adamw")


def test_several_rules_take_the_general_recipe() -> None:
    config = RunConfig(rule={"conv*": "dfa", "*": "bp"})
    assert (config.optimizer, config.lr) == (Recipe().optimizer, Recipe().lr)


def test_an_unknown_rule_is_left_to_the_compiler() -> None:
    assert RunConfig(rule="nonsense").lr == Recipe().lr


def test_a_recipe_says_what_it_is() -> None:
    recipe = Recipe("sgd", lr=0.05, momentum=0.9, nesterov=True, feedback_lr=1e-4, lr_schedule="cosine")
    assert str(recipe) == "sgd, lr=0.05, feedback_lr=0.0001, momentum=0.9, nesterov, cosine"
    assert "weight_decay" not in recipe.settings()


def test_the_rate_of_feedback_follows_and_decays(tmp_path) -> None:
    rates = []

    class Watch(altprop.training.Reporter):
        def finished_epoch(self, row) -> None:
            rates.append((self.run.net.optimizer.lr, self.run.net.optimizer.feedback_lr))

        def started(self, run) -> None:
            self.run = run

    flags = {"rule": "dkp", "lr": 1e-2, "feedback_lr": 1e-3, "feedback_lr_decay": 0.5, "lr_schedule": "cosine"}
    config = make_config(flags={**flags, "epochs": 2, "subset": 128, "hidden": [8], "tensorboard": False})
    altprop.training.train(config, tmp_path / "run", reporter=Watch())
    second = learning_rate(config, 1)
    assert rates == [(1e-2, pytest.approx(1e-3)), (second, pytest.approx(second * 0.1 * 0.5))]
