"""RMSProp as Graves (2013, Eqs 38-45) wrote it, and optimisers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import Optimizer, ParamsT

from seqdens.errors import UsageError
from seqdens.registry import choices

UNSUITABLE = {
    "lbfgs": "evaluates the loss several times a step, which training on batches does not do",
    "sparseadam": "takes sparse gradients alone, and there are none here",
}


class GravesRMSprop(Optimizer):
    """Steps `lr * e / sqrt(n - g^2 + eps)` with momentum, e the gradient, n and g running means of e^2 and e.

    `eps` stands inside the root: `torch.optim.RMSprop(centered=True)` adds it outside, and with it takes steps up
    to 100 times larger where gradients are small. The scale of the gradients matters; Graves' are of nats per line.
    Raises `UsageError` for values out of range and for sparse gradients. Source: Graves 2013, Eqs 38-45.
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-4, *, decay: float = 0.95, momentum: float = 0.9, eps: float = 1e-4
    ) -> None:
        for name, value in (("decay", decay), ("momentum", momentum)):
            if not 0 <= value < 1:
                raise UsageError(f"{name} of graves-rmsprop is {value}, but must be at least 0 and below 1.")
        for name, value in (("lr", lr), ("eps", eps)):
            if not 0 < value < float("inf"):
                raise UsageError(f"{name} of graves-rmsprop is {value}, but must be positive and finite.")
        super().__init__(params, {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient; returns what `closure`, if given, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._update([parameter for parameter in group["params"] if parameter.grad is not None], group)
        return loss

    def _update(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        e = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if any(gradient.is_sparse for gradient in e):
            raise UsageError("graves-rmsprop takes no sparse gradients; make the embedding's sparse=False.")
        n, g, d = (self._buffers(parameters, name) for name in ("mean_square", "mean", "delta"))
        decay = group["decay"]
        torch._foreach_mul_(n, decay)
        torch._foreach_addcmul_(n, e, e, 1 - decay)
        torch._foreach_mul_(g, decay)
        torch._foreach_add_(g, e, alpha=1 - decay)

        variance = torch._foreach_addcmul(n, g, g, -1)
        torch._foreach_clamp_min_(variance, 0)  # never negative but by rounding, which large gradients lift above eps
        torch._foreach_add_(variance, group["eps"])
        torch._foreach_sqrt_(variance)

        torch._foreach_mul_(d, group["momentum"])
        torch._foreach_addcdiv_(d, e, variance, -group["lr"])
        torch._foreach_add_(parameters, d)

    def _buffers(self, parameters: list[torch.Tensor], name: str) -> list[torch.Tensor]:
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


def make_optimiser(name: str, parameters: ParamsT, learning_rate: float) -> Optimizer:
    """The optimiser `name`: "graves-rmsprop" or a class of `torch.optim`, in upper or lower case.

    Raises `UsageError` for an unknown name, for an optimiser that cannot train here, and for values it refuses.
    """
    key = name.lower()
    if key in UNSUITABLE:
        raise UsageError(f"optimiser {name!r} {UNSUITABLE[key]}; {choices(key, _optimisers())}")
    if key not in _optimisers():
        raise UsageError(f"no optimiser is named {name!r}; {choices(key, _optimisers())}")
    try:
        return _optimisers()[key](parameters, lr=learning_rate)
    except ValueError as error:
        raise UsageError(f"optimiser {name!r} refuses: {error}") from error


def _optimisers() -> dict[str, Callable[..., Optimizer]]:
    found = {
        name.lower(): value
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
    }
    return {"graves-rmsprop": GravesRMSprop} | {name: found[name] for name in found.keys() - UNSUITABLE.keys()}
