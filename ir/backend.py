"""What a backend wants of the programs that it runs: data that the compiler reads, and nobody's name."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Wants:
    """How programs are to be made for a backend; as it stands, for one that runs operator by operator in torch.

    Attributes:
        tensor_scalars: numbers that change from step to step come as tensors, since Python numbers would be fixed.
        fused_updates: an update may run into its buffer in one operator.
        reused_memory: results may overwrite arguments that nothing reads any more.
        own_kernels: faster kernels may be chosen for matrix products.
        compiled: a compiler of the backend's own comes after, to which chosen kernels are operators of their own.
        channels_last: images may be laid out channels last inside programs.
        stored_channels_last: feedback may lie in memory so from the start.
        whole_step: the step runs outside torch as a whole. The compiler hands it over in ONNX; it is given the rates,
            the seed and how many steps there were, as tensors, and draws its own noise. Other programs run in torch.
        learners: steps may hold learners, which run in Python.
        least_memory: a step holds as little memory as it can, though it takes longer: its forward runs again where
            updates read it.
    """

    tensor_scalars: bool = False
    fused_updates: bool = True
    reused_memory: bool = True
    own_kernels: bool = True
    compiled: bool = False
    channels_last: bool = True
    stored_channels_last: bool = True
    whole_step: bool = False
    learners: bool = True
    least_memory: bool = False
