"""PackedAdamW: AdamW on parameters with a leading K, each member with its own learning rate and decay."""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from slopesearch.nets.packed import PackedModel


class PackedAdamW:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2), torch's defaults: betas 0.9 and 0.999, eps 1e-8.

    `lr` and `weight_decay` have one value per member. As in single runs, weights decay, while slopes,
    BatchNorm and biases, which have one dimension or none besides the leading K, do not.
    """

    beta1, beta2, eps = 0.9, 0.999, 1e-8

    def __init__(self, model: PackedModel, lr: Sequence[float], weight_decay: Sequence[float]) -> None:
        self.model = model
        self.parameters: list[Tensor] = []
        self._lr: list[Tensor] = []
        self._decay: list[Tensor] = []  # lr * weight_decay, of the parameters that decay
        self._decaying: list[Tensor] = []
        for parameter, members in model.members_of():
            shape = (-1, *[1] * (parameter.dim() - 1))
            rates = parameter.new_tensor([lr[k] for k in members]).view(shape)
            self.parameters.append(parameter)
            self._lr.append(rates)
            if parameter.dim() > 2 and any(weight_decay):
                decays = parameter.new_tensor([weight_decay[k] for k in members]).view(shape)
                self._decaying.append(parameter)
                self._decay.append(rates * decays)
        self.mean = [torch.zeros_like(p) for p in self.parameters]
        self.square = [torch.zeros_like(p) for p in self.parameters]
        self.steps = 0

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One update with every learning rate multiplied by `factor`."""
        self.steps += 1
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        assert len(gradients) == len(self.parameters)
        if self._decaying:
            kept = list(torch._foreach_mul(self._decay, -factor))
            torch._foreach_add_(kept, 1)
            torch._foreach_mul_(self._decaying, kept)
        torch._foreach_lerp_(self.mean, gradients, 1 - self.beta1)
        torch._foreach_mul_(self.square, self.beta2)
        torch._foreach_addcmul_(self.square, gradients, gradients, 1 - self.beta2)
        size = list(torch._foreach_sqrt(self.square))
        torch._foreach_div_(size, sqrt(1 - self.beta2**self.steps))
        torch._foreach_add_(size, self.eps)
        update = list(torch._foreach_div(self.mean, size))
        torch._foreach_mul_(update, self._lr)
        torch._foreach_mul_(update, factor / (1 - self.beta1**self.steps))
        torch._foreach_sub_(self.parameters, update)

    @torch.no_grad()
    def take_over(self, old: "PackedAdamW", kept: Sequence[int]) -> None:
        """The moments of the optimizer of a larger pack; `kept[k]` is what member k of this one was there."""
        self.steps = old.steps
        new_index = {id(p): i for i, p in enumerate(self.parameters)}
        old_index = {id(p): i for i, p in enumerate(old.parameters)}
        for k, before in enumerate(kept):
            for name, home in self.model.homes[k].items():
                if id(home.tensor) not in new_index:
                    continue  # a buffer
                source = old.model.homes[before][name]
                new, there = new_index[id(home.tensor)], old_index[id(source.tensor)]
                self.mean[new][home.row] = old.mean[there][source.row]
                self.square[new][home.row] = old.square[there][source.row]
