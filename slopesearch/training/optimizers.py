"""AdamW for one network, and for a pack in which each member has its own learning rate and decay."""

import inspect
from collections.abc import Iterable, Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from slopesearch.nets.packed import PackedModel


class SingleAdamW(torch.optim.AdamW):
    """torch's AdamW with the learning rate as a factor of the start's, and all parameters in one call.

    What `Optimizer.step` does around the update takes longer than the update of a small network: 1.05 against
    0.25 ms a step of the CNN (one thread of a Zen 4, profiled, 2026-11-25). Weights decay; slopes, BatchNorm
    and biases, which have fewer than two dimensions, do not.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        parameters = list(parameters)
        weights = [p for p in parameters if p.dim() > 1]
        others = [p for p in parameters if p.dim() <= 1]
        groups = [
            {"params": weights, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        super().__init__(groups, lr=lr, fused=True)
        for p in parameters:
            zeros = [torch.zeros_like(p, memory_format=torch.preserve_format) for _ in range(2)]
            step = torch.zeros((), dtype=torch.float32, device=p.device)
            self.state[p] = {"step": step, "exp_avg": zeros[0], "exp_avg_sq": zeros[1]}
        self._lr = lr
        self._together = [(weight_decay, weights), (0.0, others)] if weight_decay else [(0.0, parameters)]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's, without what keeps it out of graphs that are compiled.

        That imports torch._dynamo, a third of a worker's start: 9.6 against 6.6 s of CPU to the first report
        on MNIST (medians of 7, interleaved, 2 cores, 2026-11-28).
        """
        inspect.unwrap(torch.optim.Optimizer.add_param_group)(self, param_group)

    def update(self, factor: float) -> None:
        """One update with the learning rate multiplied by `factor`; the gradients are used up."""
        for decay, parameters in self._together:
            states: list[dict[str, Tensor]] = [self.state[p] for p in parameters]
            with torch.no_grad():
                adamw(
                    list(parameters),
                    [p.grad for p in parameters if p.grad is not None],
                    [state["exp_avg"] for state in states],
                    [state["exp_avg_sq"] for state in states],
                    [],
                    [state["step"] for state in states],
                    fused=True,
                    amsgrad=False,
                    beta1=0.9,
                    beta2=0.999,
                    eps=1e-8,
                    lr=self._lr * factor,
                    weight_decay=decay,
                    maximize=False,
                )
            for p in parameters:
                p.grad = None


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
