"""A 3x3 convolution whose map is max-pooled at once, for training on a CPU: a backward of a quarter the work.

Only the winners of the pool have a gradient, one of four numbers, so both gradients are sums over those, in
float32. In bf16 that needs a processor that multiplies it itself.
"""

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slopesearch.nets.pooling import bits_of, compiles, memory_of, pooled
from slopesearch.nets.stem import is_3x3, map_dtype


class _PooledConv(torch.autograd.Function):
    """x (N, C, H, W), weight (K, C, 3, 3), bias (K,) -> (N, K, H/2, W/2), channels-last."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, activation: nn.Module | None
    ) -> Tensor:
        y = F.conv2d(x, weight, bias, padding=1)
        y, winner = pooled(y.contiguous(memory_format=torch.channels_last), activation)
        ctx.save_for_backward(x, winner, weight)
        return y

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        from slopesearch.nets import pooled_conv_kernels as kernels

        x, winner, weight = ctx.saved_tensors
        dy = dys[0].contiguous(memory_format=torch.channels_last)
        channels, blocks = len(weight), x.shape[1] // kernels.BLOCK
        order = torch.from_numpy(kernels.BF16_ORDER) if x.dtype == torch.bfloat16 else slice(None)
        # Made by torch, which aligns memory to 64 bytes, a vector; numba does not.
        room = (x.shape[2] + 2, x.shape[3] + 2, kernels.BLOCK)

        padded = torch.zeros(room, dtype=x.dtype)
        dw = torch.empty(blocks, channels * 9 * kernels.BLOCK)
        maps = memory_of(x), memory_of(dy), memory_of(winner)
        kernels.gradient_of_weights(*maps, bits_of(padded), dw.numpy())
        dw = dw.view(blocks, channels, 3, 3, kernels.BLOCK)[..., order]

        w = weight.to(x.dtype).permute(0, 2, 3, 1).unflatten(3, (blocks, -1))[..., order]
        w = w.movedim(3, 0).reshape(blocks, -1)
        dx = torch.empty_like(x)
        sums = torch.empty(room)
        kernels.gradient_of_maps(memory_of(dy), memory_of(winner), bits_of(w), sums.numpy(), memory_of(dx))

        dbias = dy.sum((0, 2, 3), dtype=torch.float32) if ctx.needs_input_grad[2] else None
        return dx, dw.permute(1, 0, 4, 2, 3).flatten(1, 2), dbias, None


def pools_at_once(layer: nn.Module, x: Tensor) -> TypeGuard[nn.Conv2d]:
    """Whether `pooled_conv` can take the place of this layer and the pool that follows, on x."""
    if not (is_3x3(layer) and compiles(x) and x.requires_grad and layer.in_channels % 32 == 0):
        return False
    if map_dtype(x) == torch.float32:
        return True
    # AMX does the whole product faster than this a quarter of it (by the two rates; not measured).
    return multiplies_bf16() and map_dtype(x) == torch.bfloat16 and not torch.cpu._is_amx_tile_supported()


def pooled_conv(conv: nn.Conv2d, x: Tensor, activation: nn.Module | None) -> Tensor:
    """pool(conv(x)), or that end of each window of conv(x) of which the activation makes more.

    (N, C, H, W) channels-last on a CPU, C a multiple of 32 -> (N, K, H/2, W/2).
    """
    y: Tensor = _PooledConv.apply(x.to(map_dtype(x)), conv.weight, conv.bias, activation)
    return y


def multiplies_bf16() -> bool:
    """Whether the kernels are compiled for bf16 here."""
    from slopesearch.nets import pooled_conv_kernels

    return pooled_conv_kernels.BF16
