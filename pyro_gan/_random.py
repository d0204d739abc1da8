"""Torch's generators: forked, seeded, saved and restored; generators of a thread's own; and who draws."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["DrawCounter", "own_generators", "rng_fork", "rng_state", "seed_rng", "set_rng_state"]

#: What takes a generator: torch's samplers, and those inside its distributions.
_TAKE_GENERATOR = {
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli, torch.multinomial),
    *(torch.poisson, torch.binomial, *(vars(torch)[name] for name in ("_standard_gamma", "_sample_dirichlet"))),
    *(Tensor.normal_, Tensor.uniform_, Tensor.exponential_, Tensor.bernoulli_, Tensor.cauchy_, Tensor.log_normal_),
    *(Tensor.geometric_, Tensor.random_, Tensor.bernoulli, Tensor.multinomial),
}

#: Words in the names of operations that draw with a dropout inside or in training alone, and mostly have neither.
_SELDOM_DRAW = ("attention", "rnn", "lstm", "rrelu")

_LIKE: dict[Any, Callable[..., Tensor]] = {torch.randn_like: Tensor.normal_, torch.rand_like: Tensor.uniform_}


@final
class _OwnGenerators(TorchFunctionMode):
    """Hands generators of its own to all functions that draw, in the thread that has entered it."""

    def __init__(self, seed: int | None, outer: _OwnGenerators | None) -> None:
        super().__init__()
        self._seed = seed
        self._outer = outer
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _LIKE:
            empty = torch.empty_like(*args, **kwargs)
            return _LIKE[func](empty, generator=self.generator(empty.device))
        if func in _TAKE_GENERATOR and kwargs.get("generator") is None:
            kwargs = {**kwargs, "generator": self.generator(_device(args, kwargs))}
        return func(*args, **kwargs)

    def generator(self, device: torch.device) -> torch.Generator:
        """Return the generator of a device; at its first use it is seeded, or stands where the outer one does."""
        if device not in self._generators:
            generator = torch.Generator(device)
            if self._seed is not None:
                generator.manual_seed(self._seed)
            elif self._outer is not None:
                generator.set_state(self._outer.generator(device).get_state())
            else:
                state = torch.get_rng_state() if device.type == "cpu" else torch.cuda.get_rng_state(device)
                generator.set_state(state)
            self._generators[device] = generator
        return self._generators[device]


_entered = threading.local()


@contextmanager
def own_generators(seed: int | None = None) -> Iterator[None]:
    """Draw from generators of this thread's own, and leave torch's alone, whose numbers other threads may be drawing.

    Args:
        seed: Their seed; if None they begin where torch's generators stand, or those of an outer such context.

    Example:
        >>> state = torch.get_rng_state()
        >>> with own_generators(3):
        ...     own = torch.randn(2)
        >>> torch.equal(state, torch.get_rng_state())
        True
        >>> _ = torch.manual_seed(3)
        >>> torch.equal(own, torch.randn(2))
        True
    """
    outer = getattr(_entered, "mode", None)
    mode = _OwnGenerators(seed, outer)
    _entered.mode = mode
    try:
        with mode:
            yield
    finally:
        _entered.mode = outer


@final
class DrawCounter(TorchDispatchMode):
    """Counts the random operations of this thread, wherever in torch they begin.

    Attributes:
        count: Operations so far that draw.

    Example:
        >>> with DrawCounter() as drawn:
        ...     _ = torch.zeros(3)
        ...     _ = torch.nn.functional.dropout(torch.ones(3))
        >>> drawn.count > 0
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        may_draw = torch.Tag.nondeterministic_seeded in func.tags
        self.count += may_draw and not any(word in func.name() for word in _SELDOM_DRAW)
        return func(*args, **(kwargs or {}))


def rng_fork() -> Any:
    """Return a context at whose end torch's global generators are as they were at its start.

    Numbers that another thread draws meanwhile come again: where only a little is drawn, use `own_generators`.
    """
    # A question to an unused GPU would open it, and a process that has opened a GPU cannot fork any more.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    return torch.random.fork_rng(devices=devices)


def seed_rng(seed: int) -> None:
    """Seed torch's generators: the CPU's, and CUDA's once CUDA is in use.

    `torch.manual_seed` keeps each seed, and a stack trace that takes a millisecond, for a GPU that is not in use yet. A
    GPU that is opened later would start from that seed, although the generators were forked.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def rng_state() -> dict[str, Any]:
    """Return the state of torch's generators: the CPU's, and CUDA's once CUDA is in use."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore torch's generators to a state that `rng_state` returned."""
    torch.set_rng_state(state["cpu"])
    for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda, device)


def _device(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.device:
    """Return the device on which a sampler draws."""
    if kwargs.get("device") is not None:
        return _with_index(torch.device(kwargs["device"]))
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    return _with_index(tensors[0].device if tensors else torch.get_default_device())


def _with_index(device: torch.device) -> torch.device:
    """Return `cuda:0` for `cuda`: one device has one generator."""
    return (
        torch.device(device.type, torch.cuda.current_device())
        if device.type == "cuda" and device.index is None
        else device
    )
