"""How options of the command line are read."""

from altprop.command.options import parse_pairs, parse_shape, parse_widths


def test_widths_shapes_and_pairs() -> None:
    assert parse_widths("2x256, 10") == [256, 256, 10]
    assert parse_shape("3x32,32") == (3, 32, 32)
    assert parse_shape("scalar") == ()
    assert parse_pairs(["a=3", "b=true", "c=x=y", "d=[1, 2]"]) == {"a": 3, "b": True, "c": "x=y", "d": [1, 2]}
