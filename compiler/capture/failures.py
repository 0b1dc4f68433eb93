"""Turns a failed capture into one sentence: which module, which line of the user's, and what to change."""

import re

from torch import nn

from altprop.compiler.capture.refuse import FOREIGN_OBJECT, INNER_GRADIENT
from altprop.ir.user_lines import frames_of, place_in_text, place_of

_REMEDIES = (
    (
        INNER_GRADIENT,
        "A local program has no derivative of a derivative: write the inner derivative with operators, or compute it "
        "outside the model.",
    ),
    # Torch before 2.13 says no more of a generator.
    (r"torch\._C\.Generator", f"{FOREIGN_OBJECT[0].upper()}{FOREIGN_OBJECT[1:]}"),
    (
        r"data-dependent|GuardOnDataDependent|Could not guard|torch\.cond|symbolic_bool|is_nonzero",
        "Control flow that depends on the values of a tensor cannot be captured: use torch.where, a mask, or "
        "torch.cond.",
    ),
    (
        r"aten\.equal|aten\.allclose",
        "Whether the numbers of two tensors are equal is asked here, which only their values tell: leave the question "
        "out.",
    ),
    (
        r"DynamicOutputShape|UnsupportedOperator|(?m:^aten\.\w+(\.\w+)?$)",
        "An operator is called here whose results have sizes that only the values of a tensor tell, or that torch "
        "cannot trace: write it with other operators (linalg.pinv for linalg.lstsq), or leave it outside the model.",
    ),
    (
        r"\.item\(\)|_local_scalar_dense|unbacked|int\(\)|float\(\)",
        "A tensor is turned into a Python number here: keep it a tensor.",
    ),
    (r"numpy", "A tensor leaves torch for NumPy here: use torch operations."),
    (r"UninitializedParameter|lazy", "Lazy modules have no parameters yet: run the model once before compiling."),
    (
        r"takes \d+ positional|too many positional|missing \d+ required|missing a required|unexpected keyword",
        "The example inputs do not fit forward: example_inputs is the tuple of its positional arguments; on the "
        "command line, give --input-shape once for each.",
    ),
    (
        r"shape|size mismatch|same reduction dim|shapes cannot be multiplied|expected input",
        "The model does not run on the example inputs: check their shapes.",
    ),
)
_PACKED = (
    "Packed sequences have sizes that depend on their contents: pad the sequences, and leave the padding out of the "
    "loss."
)
_HIDDEN = (
    r"fake tensor in the exported program constant's list",
    "forward reads or assigns `.data` of a tensor, of which a capture sees nothing. Use the tensor itself, with "
    ".detach() where no gradient is wanted; torch.nn.utils.parametrizations norm a weight.",
)
# Words of torch, about its tracing.
_WORDS = r"aten\.|\bguard|unhinted|\bFake|Sym(Int|Bool)|torch\._|functorch|\bEq\(|\bu\d+\b"
_DEFAULT = "Write this part with tensor operations that torch.export can capture, or leave it outside the model."


def explain_failure(model: nn.Module, error: BaseException) -> str:
    """Returns the sentence for an error that `torch.export` raised on `model`."""
    text = str(error).strip()
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    module, place = _locate(model, error, text)
    if re.search(_HIDDEN[0], text):
        return f"{module} cannot be captured{place}: {_HIDDEN[1]}"
    remedy = _PACKED if _reads_packed(error) else _remedy(text)
    said = "" if re.search(_WORDS, first) else f"{_sentence(first[:300])} "
    return f"{module} cannot be captured{place}: {said}{remedy}"


def _sentence(text: str) -> str:
    """A line with a full stop, where it ends without a mark."""
    return text if text.endswith((".", "!", "?", ":", ";", ",")) else f"{text}."


def _reads_packed(error: BaseException) -> bool:
    return any(
        isinstance(value, nn.utils.rnn.PackedSequence)
        for frame, _ in frames_of(error)
        for value in frame.f_locals.values()
    )


def _remedy(text: str) -> str:
    return next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, text)), _DEFAULT)


def _locate(model: nn.Module, error: BaseException, text: str) -> tuple[str, str]:
    """The innermost module of the model that was running, and the innermost line that is not torch's."""
    names = {id(module): name for name, module in model.named_modules()}
    module = type(model).__name__
    for frame, _ in frames_of(error):
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in names:
            path = names[id(owner)]
            module = f'module "{path}" ({type(owner).__name__})' if path else type(owner).__name__
    return module, place_of(error) or place_in_text(text)
