"""What objects do, as a digest: what changes it, what does not, and what is refused."""

import dataclasses
import enum
import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from altprop.compiler.cache.fingerprint import NotToldError, fingerprint, names_of
from altprop.ir.loss import get_loss

HEADER = "import torch\nimport functools\nimport math\nimport enum\nimport dataclasses\nfrom torch import nn\n"


def made(source: str, name: str = "f", **others: Any) -> Any:
    """An object of a module of its own, as a user's file would have it."""
    module = types.ModuleType("mine")
    vars(module).update(others)
    exec(compile(HEADER + source, "mine.py", "exec"), vars(module))
    return vars(module)[name]


PLAIN = "def f(x, y):\n    return (x - y).square().mean()\n"


@pytest.mark.parametrize(
    "source",
    [
        PLAIN,
        "\n\n# why\n" + PLAIN,
        "def f(x, y):\n    # twice\n    return (\n        x - y\n    ).square().mean()\n",
        "def f(x: int, y: int) -> int:\n    return (x - y).square().mean()\n",
    ],
)
def test_lines_and_comments_do_not_count(source: str) -> None:
    assert fingerprint(made(source)) == fingerprint(made(PLAIN))


DIFFERENT = {
    "a constant": ("def f(x):\n    return x * 2\n", "def f(x):\n    return x * 3\n"),
    "an operator": ("def f(x):\n    return x * 2\n", "def f(x):\n    return x + 2\n"),
    "a name": ("def f(x):\n    return x.sin()\n", "def f(x):\n    return x.cos()\n"),
    "a global": ("G = 1\ndef f(x):\n    return x * G\n", "G = 2\ndef f(x):\n    return x * G\n"),
    "the type of a global": ("G = 1\ndef f(x):\n    return x * G\n", "G = 1.0\ndef f(x):\n    return x * G\n"),
    "a default": ("def f(x, k=1):\n    return x * k\n", "def f(x, k=2):\n    return x * k\n"),
    "a keyword's default": ("def f(x, *, k=1):\n    return x * k\n", "def f(x, *, k=2):\n    return x * k\n"),
    "a function that it calls": (
        "def g(x):\n    return x\ndef f(x):\n    return g(x)\n",
        "def g(x):\n    return -x\ndef f(x):\n    return g(x)\n",
    ),
    "a value that it closes over": (
        "def g(k):\n    return lambda x: x * k\nf = g(1)\n",
        "def g(k):\n    return lambda x: x * k\nf = g(2)\n",
    ),
    "an inner function": ("def f(x):\n    return (lambda: x)()\n", "def f(x):\n    return (lambda: -x)()\n"),
    "a global of an inner function": (
        "G = 1\ndef f(x):\n    return (lambda: x * G)()\n",
        "G = 2\ndef f(x):\n    return (lambda: x * G)()\n",
    ),
    "a partial's argument": ("f = functools.partial(torch.mul, 1)\n", "f = functools.partial(torch.mul, 2)\n"),
    "a kept result's function": (
        "@functools.cache\ndef g():\n    return 1\ndef f(x):\n    return x * g()\n",
        "@functools.cache\ndef g():\n    return 2\ndef f(x):\n    return x * g()\n",
    ),
    "a method": (
        "class C:\n    def m(self, x):\n        return x\nf = C()\n",
        "class C:\n    def m(self, x):\n        return -x\nf = C()\n",
    ),
    "a method of a base": (
        "class B:\n    def m(self, x):\n        return x\nclass C(B):\n    pass\nf = C()\n",
        "class B:\n    def m(self, x):\n        return -x\nclass C(B):\n    pass\nf = C()\n",
    ),
    "a property": (
        "class C:\n    @property\n    def m(self):\n        return 1\nf = C()\n",
        "class C:\n    @property\n    def m(self):\n        return 2\nf = C()\n",
    ),
    "a static method": (
        "class C:\n    @staticmethod\n    def m():\n        return 1\nf = C()\n",
        "class C:\n    @staticmethod\n    def m():\n        return 2\nf = C()\n",
    ),
    "an attribute": ("class C:\n    pass\nf = C()\nf.k = 1\n", "class C:\n    pass\nf = C()\nf.k = 2\n"),
    "a slot": (
        "class C:\n    __slots__ = ('k',)\nf = C()\nf.k = 1\n",
        "class C:\n    __slots__ = ('k',)\nf = C()\nf.k = 2\n",
    ),
    "an attribute of a class": ("class C:\n    k = 1\nf = C()\n", "class C:\n    k = 2\nf = C()\n"),
    "a field's default": (
        "@dataclasses.dataclass\nclass C:\n    k: int = 1\nf = C\n",
        "@dataclasses.dataclass\nclass C:\n    k: int = 2\nf = C\n",
    ),
    "a field's value": (
        "@dataclasses.dataclass(frozen=True)\nclass C:\n    k: int = 1\nf = C()\n",
        "@dataclasses.dataclass(frozen=True)\nclass C:\n    k: int = 1\nf = C(2)\n",
    ),
    "a member": (
        "class E(enum.Enum):\n    A = 1\n    B = 2\nf = E.A\n",
        "class E(enum.Enum):\n    A = 1\n    B = 2\nf = E.B\n",
    ),
    "a tensor": ("f = torch.ones(3)\n", "f = torch.zeros(3)\n"),
    "the shape of a tensor": ("f = torch.ones(2, 3)\n", "f = torch.ones(3, 2)\n"),
    "the type of a tensor": ("f = torch.zeros(3)\n", "f = torch.zeros(3, dtype=torch.int32)\n"),
    "a module's setting": ("f = nn.CrossEntropyLoss()\n", "f = nn.CrossEntropyLoss(label_smoothing=0.1)\n"),
    "a module's weight": ("f = nn.CrossEntropyLoss(torch.ones(3))\n", "f = nn.CrossEntropyLoss(torch.zeros(3))\n"),
    "a set": ("f = {1, 2}\n", "f = {1, 3}\n"),
    "a dictionary's key": ("f = {'a': 1}\n", "f = {'b': 1}\n"),
    "rows of words": ("f = ['ab', 'c']\n", "f = ['a', 'bc']\n"),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_an_object_does_is_told(what: str) -> None:
    one, other = DIFFERENT[what]
    assert fingerprint(made(one)) != fingerprint(made(other))
    assert fingerprint(made(one)) == fingerprint(made(one))


def test_a_module_counts_by_what_is_read_of_it() -> None:
    source = "def f(x):\n    return helper.g(x)\n"

    def with_helper(body: str) -> str:
        helper = types.ModuleType("helper")
        exec(body, vars(helper))
        return fingerprint(made(source, helper=helper))

    plain = "K = 1\ndef g(x):\n    return x * K\n"
    assert with_helper(plain) == with_helper(plain + "def unread(): pass\n")
    assert with_helper(plain) != with_helper(plain.replace("K = 1", "K = 2"))


def test_tensors_of_a_closure_and_cycles() -> None:
    def around(value: torch.Tensor) -> Callable[[], torch.Tensor]:
        def inner() -> torch.Tensor:
            return value * 2

        return inner

    assert fingerprint(around(torch.ones(2))) == fingerprint(around(torch.ones(2)))
    assert fingerprint(around(torch.ones(2))) != fingerprint(around(torch.ones(2) * 3))
    row: list[Any] = [1]
    row.append(row)
    assert fingerprint(row) == fingerprint(row)


def test_losses_and_what_is_known() -> None:
    assert fingerprint(get_loss("mse")) == fingerprint(get_loss("mse"))
    assert fingerprint(get_loss("mse")) != fingerprint(get_loss("l1"))
    assert fingerprint(torch.nn.functional.mse_loss) != fingerprint(torch.nn.functional.l1_loss)
    assert fingerprint(nn.Linear) != fingerprint(nn.Bilinear)
    assert fingerprint(torch.ops.aten.add.Tensor) != fingerprint(torch.ops.aten.add.Scalar)


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Holder:
    what: Any


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (made("def f(x):\n    return x * float(open('k').read())\n"), "f names open, which reads what is outside"),
        (
            made("import numpy as np\ndef f(x):\n    return x * np.random.rand()\n"),
            "f names random, which reads what is",
        ),
        (made("import os\ndef f(x):\n    return x * float(os.environ['K'])\n"), "f names os, which reads what is"),
        (made("def f(x):\n    import time\n    return x * time.time()\n"), "f names time, which reads what is outside"),
        (made("def f(x):\n    import not_here\n    return not_here.g(x)\n"), "f imports not_here, which is not there"),
        (Holder(torch.Generator()), "it holds an object of the type Generator"),
        (Holder(iter([1])), "it holds an object of the type list_iterator"),
        (Holder(torch.eye(2).to_sparse()), "it holds a tensor of the type Tensor that has no plain bytes"),
        (Holder(pytest), "it keeps the module pytest"),
        (list(range(100_000)) and [[n] for n in range(30_000)], "it is made of more than 20000 values"),
    ],
)
def test_what_cannot_be_told_is_refused(value: Any, message: str) -> None:
    with pytest.raises(NotToldError, match=message):
        fingerprint(value)


def test_the_order_of_a_set_does_not_count() -> None:
    """It is another one in each process."""
    words = [f"word {n}" for n in range(50)]
    assert fingerprint(set(words)) == fingerprint(set(words[1::2]) | set(words[::2]))
    assert fingerprint(functools.partial(max, Colour.RED)) == fingerprint(functools.partial(max, Colour.RED))


def test_what_is_read_through_super_is_an_attribute() -> None:
    read = made("class f(nn.Module):\n    def forward(self, x):\n        return super().near(x)\n").forward
    assert names_of(read.__code__)[1] == ("near",)
