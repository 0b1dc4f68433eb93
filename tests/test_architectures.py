"""Real architectures: a fast few of `zoo_architectures`; `make coverage` runs every rule on all of them."""

import pytest
from test_oracle import check_against_autograd, check_every_parameter_moves
from zoo_architectures import ARCHITECTURES

FAST = {"unet": "fa", "nerf": "dfa", "gat": "dfa", "mixer": "reclra"}


@pytest.mark.parametrize("name", [*FAST, "translator"])
def test_transpose_feedback_is_autograd(name: str) -> None:
    check_against_autograd(ARCHITECTURES[name])


@pytest.mark.parametrize("name", FAST)
def test_other_rules_move_every_parameter(name: str) -> None:
    check_every_parameter_moves(ARCHITECTURES[name], FAST[name])
