"""Text of programs: what is printed parses back; all else is refused by its line."""

import functools
from typing import Any

import pytest
import sympy
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import fx

from altprop import ProgramError
from altprop.ir.argument_text import format_arguments, read_arguments
from altprop.ir.fakes import Fakes, format_fake
from altprop.ir.program import Program
from altprop.ir.program_text import format_program, parse_program
from altprop.ir.size_text import TextError, format_size, parse_size

TEXT = """altprop program 1
program step
batch 4
take w = parameter fc.weight: float32 (3, 7)
take x = input x: float32 (N, 7)
take rate = scalar minus_lr
t = aten.t(w): float32 (7, 3) strides (1, 7) in fc
mm = aten.mm(x, t): float32 (N, 3) in "the last"
size = aten.sym_size.int(mm, 0): int N
one = operator.truediv(1.0, size)
scaled = aten.mul.Tensor(mm, one): float32 (N, 3)
top = aten.topk(scaled, 2, -1, True, sorted=False): tuple[float32 (N, 2); int64 (N, 2)]
best = operator.getitem(top, 0): float32 (N, 2)
wide = aten.expand(best, [-1, 2]): float32 (N, 2)
total = aten.sum(wide, dtype=torch.float64): float64 ()
moved = aten.add_.Tensor(w, w, alpha=rate): float32 (3, 7)
give loss loss = total
give value "of all: \\"x\\"" = scaled"""


@functools.cache
def parsed(text: str = TEXT) -> Program:
    return parse_program(text)


def test_a_program_prints_and_parses_back() -> None:
    program = parsed()
    assert format_program(program) == str(program) == TEXT
    assert [slot.name for slot in program.inputs] == ["fc.weight", "x", "minus_lr"]
    assert program.placeholders[program.inputs[1]].meta["val"].shape[1] == 7
    loss, _ = program.graph(torch.ones(3, 7), torch.ones(5, 7), 0.5)
    assert loss.item() == pytest.approx(5 * 2 * 7 / 5)


def test_blank_lines_and_comments_do_not_count() -> None:
    assert str(parsed("\n# what it is\n\n" + TEXT.replace("\n", "\n\n  # why\n  ") + "\n")) == TEXT


# What is refused


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("altprop program 1", "altprop program 2", "line 1: version 2; this altprop reads version 1 of programs"),
        ("altprop program 1", "altprop program 1 ", "the same"),
        ("altprop program 1", "program step", 'line 1: a program begins with the line "altprop program 1", not with'),
        ("program step\n", "", "line 17: the program has no name"),
        ("batch 4\n", "", "line 4: float32 .N, 7. depends on the batch N: give an example of it"),
        ("batch 4", "batch 1", "line 3: a batch of 1 stands for itself alone"),
        ("batch 4", "batch 4\nbatch 4", 'line 4: "batch" stands twice'),
        ("batch 4", "batches 4", 'line 3: "batches 4" does not read as a line of a program'),
        ("parameter fc.weight", "weight fc.weight", "line 4: .* does not read as a line"),
        ("input x", "parameter fc.weight", "line 5: the slot parameter fc.weight is taken twice"),
        ("take x", "take w", 'line 5: "w" stands twice'),
        ("take x", "take input", "line 5: input has a meaning in Python: give the value another name, such as input_1"),
        ("aten.t(w)", "aten.tt(w)", "line 7: there is no operator aten.tt"),
        ("aten.t(w)", "aten.t.out(w)", "line 7: there is no operator aten.t.out"),
        ("aten.t(w)", "os.system(w)", "line 7: there is no operator os.system"),
        ("aten.t(w)", "aten.save(w)", "line 7: there is no operator aten.save"),
        ("aten.t(w)", "aten.from_file(w)", "line 7: there is no operator aten.from_file"),
        ("aten.t(w)", "higher_order.cond(w)", "line 7: there is no operator higher_order.cond"),
        ("aten.t(w)", "operator.attrgetter(w)", "line 7: there is no operator operator.attrgetter"),
        ("aten.t(w)", "aten.t(mm)", "line 7: mm is read before it is made"),
        ("aten.t(w)", "aten.t(w", 'line 7: ", " is missing before ": float32'),
        ("aten.t(w)", "aten.t(w) x", 'line 7: " x: float32 .* is neither a form nor a region'),
        ("2, -1, True", "2, -1,True", 'line 12: ", " is missing'),
        ("2, -1, True", "2, -1, ?", 'line 12: "[?], sorted=False.* does not begin with an argument'),
        ("sorted=False", "sorted=False, True", "line 12: an argument without a name stands behind one with a name"),
        ("sorted=False", "sorted=False, sorted=False", 'line 12: the argument "sorted" stands twice'),
        ("torch.float64", "torch.load", "line 15: torch.load is no type, layout or memory format"),
        ("float64 ()", "float65 ()", "line 15: there is no type float65"),
        ("float64 ()", "number", "line 15: number is no form of a value"),
        ("(7, 3) strides (1, 7)", "(7, 3) strides (1)", "line 7: .* has 2 sizes and 1 strides"),
        ("int N", "int M", "line 9: M is no size"),
        ("int N", "int open(N)", "line 9: .* open is no function of sizes"),
        ("int N", "int N**9999", "line 9: .* is no size"),
        ("float32 (N, 7)", "float32 (N, 7) on gpu:0", "line 5: there is no device gpu:0"),
        ("float32 (N, 7)", "float32 (N, 7) strides (7, 1)", 'line 5: .* has another form: it is written "take x'),
        ("1.0, size", "1.00, size", "line 10: .* has another form"),
        ("give loss loss = total", "give loss loss = w\\w", "line 17: .* does not read as a line"),
        ("give loss loss = total", "give loss loss = all", "line 17: all is read before it is made"),
        ("give value", "give loss loss = mm\ngive value", "line 18: the slot loss loss is given twice"),
        ("= scaled", "= scaled\nlate = aten.t(w)", "line 19: late is made behind an output"),
        ("give loss", "take y = input y\ngive loss", "line 17: y is taken behind the first operator"),
        (
            "give loss",
            "hold y = constant\ngive loss",
            'line 17: the program holds a tensor "constant", and none of that',
        ),
        ('"of all', '"\\x', "line 18: .* does not read as a line|line 18: Invalid"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_line(old: str, new: str, message: str) -> None:
    assert TEXT.count(old) >= 1
    text = TEXT.replace(old, new, 1)
    if message == "the same":
        assert str(parse_program(text)) == TEXT
        return
    with pytest.raises(ProgramError, match=f"^my file, {message}"):
        parse_program(text, where="my file")


def test_nothing_is_no_program() -> None:
    with pytest.raises(ProgramError, match='line 1: a program begins with the line "altprop program 1"'):
        parse_program("")


@settings(max_examples=150)
@given(st.data())
def test_a_changed_character_never_passes_unseen(data: Any) -> None:
    """The text is refused in a sentence, or what was read prints as the text that was given."""
    place = data.draw(st.integers(0, len(TEXT) - 1))
    changed = TEXT[:place] + data.draw(st.sampled_from('01a ,()[]"=@:.\nN-')) + TEXT[place + 1 :]
    try:
        found = parse_program(changed)
    except ProgramError:
        return
    lines = [line.strip() for line in changed.split("\n")]
    assert str(found).split("\n") == [line for line in lines if line and not line.startswith("#")]


def test_what_has_no_text_is_refused_by_name() -> None:
    program = parsed()
    graph = fx.Graph()
    returned = graph.graph_copy(program.graph.graph, {})
    graph.output(returned)
    node = next(node for node in graph.nodes if node.name == "t")
    node.target = open
    odd = program.replace(graph=fx.GraphModule(torch.nn.Module(), graph))
    with pytest.raises(ProgramError, match="program step, t: <built-in function open> has no text"):
        format_program(odd)
    node.target, node.args = torch.ops.aten.t.default, (slice(1),)
    with pytest.raises(ProgramError, match="program step, t: an argument of the type slice has no text"):
        format_program(odd)
    node.args, node.meta["val"] = (), torch.eye(2).to_sparse()
    with pytest.raises(ProgramError, match=r"a tensor with the layout torch.sparse_coo has no text"):
        format_program(odd)


def test_two_batches_have_no_text() -> None:
    node = Fakes.fresh(4).batch.node
    area = node.expr * sympy.Symbol("other", integer=True, positive=True)
    with pytest.raises(TextError, match="is made of 2 sizes, where a program has one"):
        format_size(node.shape_env.create_symintnode(area, hint=20))


def test_a_size_that_depends_on_numbers_in_a_tensor_has_no_text() -> None:
    """It would be taken for the batch, being the only symbol of its expression."""
    found = Fakes.fresh(4).mode.shape_env.create_unbacked_symint()
    with pytest.raises(TextError, match="depends on the numbers in a tensor, not on the batch"):
        format_size(2 * found)


# Parts of the text


def expressions() -> st.SearchStrategy[str]:
    leaf = st.integers(1, 9).map(str) | st.just("N")
    return st.recursive(
        leaf,
        lambda inner: (
            st.builds("({} {} {})".format, inner, st.sampled_from(["+", "*", "-", "//"]), inner)
            | st.builds("{}({}, {})".format, st.sampled_from(["Max", "Min", "Mod"]), inner, inner)
        ),
        max_leaves=6,
    )


FAKES = Fakes.fresh(12)


@settings(max_examples=200)
@given(expressions())
@example("(1 - ((1 + N) * (2 + N)))")
@example("Min(Max(2, N), Max(3, N))")
def test_sizes_print_as_they_read(text: str) -> None:
    try:
        size = parse_size(text, FAKES.batch)
    except TextError:  # a division by zero
        return
    printed = format_size(size)
    assert format_size(parse_size(printed, FAKES.batch)) == printed


ARGUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([torch.float32, torch.bool, torch.strided, torch.channels_last, torch.device("cuda", 1)]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=8,
)


@settings(max_examples=200)
@given(st.lists(ARGUMENTS, max_size=4), st.dictionaries(st.sampled_from(["alpha", "dim", "out"]), ARGUMENTS))
def test_arguments_print_and_read_back(args: list[Any], kwargs: dict[str, Any]) -> None:
    text = format_arguments(args, kwargs)
    found = read_arguments(f"{text}): float32 ()", {}.__getitem__)
    assert repr((list(found.args), found.kwargs)) == repr((args, kwargs))  # nan is not equal to itself
    assert found.end == len(text) + 1


FORMS = (
    "float32 (N, 7)",
    "bool (N)",
    "bool True",
    "int 3",
    "int -1",
    "int (N//2)",
    "int 5*N + 1",
    "float 0.5",
    "None",
    "float64 ()",
    "bfloat16 (N, 8, 4, 4) strides (128, 1, 32, 8) on cuda:0",
    "float32 (0, 3)",
    "tuple[float32 (N); None; int64 (N, Max(7, N))]",
    "list[float32 (3); float32 (4)]",
    "tuple[]",
)


@pytest.mark.parametrize("form", FORMS)
def test_forms_print_as_they_read(form: str) -> None:
    assert format_fake(FAKES.read(form)) == form


def test_channels_last_is_seen() -> None:
    value = FAKES.read("float32 (N, 8, 4, 4) strides (128, 1, 32, 8)")
    assert value.is_contiguous(memory_format=torch.channels_last)
    assert FAKES.read("float32 (N, 8, 4, 4)").is_contiguous()


def test_numbers_that_are_not_whole_have_no_form() -> None:
    program = parsed()
    one = next(node for node in program.graph.graph.nodes if node.name == "one")
    one.meta["val"] = 1.0 / program.placeholders[program.inputs[1]].meta["val"].shape[0]
    assert str(program) == TEXT
