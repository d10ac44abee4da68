"""accelerate(model): the same function, faster on a CPU.

`SLOPESEARCH_KERNELS=off` trains the model itself everywhere, and so does a machine where the loops do not
compile, which says so once.
"""

import logging
import os
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

PRECISIONS = (torch.float32, torch.bfloat16)


def accelerate(model: nn.Sequential) -> nn.Module:
    """A module that shares the model's parameters and does what the model does, in training and evaluation.

    On a CPU, in float32 or under autocast to bf16, where weights are rounded as autocast rounds them. For
    anything else, on another device or where the loops are off, the model itself does it. Most layers are
    not called, so their hooks do not run.
    """
    return Accelerated(model) if kernels_compile() else model


@cache
def kernels_compile() -> bool:
    """Whether the loops are wanted and compile here; the reason is logged where they do not."""
    if os.environ.get("SLOPESEARCH_KERNELS", "").strip().lower() == "off":
        return False
    try:
        from slopesearch.nets.cpu import loops  # noqa: F401 - they compile when they are imported
    except Exception as error:
        # numba may be missing, may not know this Python or this processor: none of it stops a study.
        logging.getLogger("slopesearch").warning(
            "the fast CPU kernels do not compile here (%s: %s); training goes on without them, at about half "
            "the speed; SLOPESEARCH_KERNELS=off leaves them out",
            type(error).__name__,
            (str(error).splitlines() or [""])[0],
        )
        return False
    return True


class Accelerated(nn.Module):
    """A model and its plans, one for each shape, layout, precision and mode that it has met."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.model = model
        self._norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        self._plans: dict[object, list[Callable[[Tensor], Tensor]]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """What the model gives for images (N, 1, H, W): logits (N, classes)."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if x.device.type != "cpu" or x.dtype != torch.float32 or dtype not in PRECISIONS:
            y: Tensor = self.model(x)
            return y
        layout = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        modes = (self.model.training, *(norm.training for norm in self._norms))
        key = x.shape[1:], layout, dtype, x.requires_grad, modes
        if key not in self._plans:
            from slopesearch.nets.cpu.plan import plan

            self._plans[key], x = plan(list(self.model), x, dtype)
            return x
        for step in self._plans[key]:
            x = step(x)
        return x
