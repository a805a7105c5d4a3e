"""RandomStream: torch's random numbers for one run, kept apart from everybody else's."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class RandomStream:
    """Torch's random numbers for one run, kept apart from everybody else's.

    Dropout draws from torch's global generators. Inside `with stream.use():` these hold the run's own state, outside
    whatever they held before, so nothing that happens between two steps (samples, a user's own draws) moves the run,
    and the run moves nobody.

    Example:
        >>> stream = RandomStream(seed=1)
        >>> with stream.use():
        ...     a = torch.rand(())
        >>> torch.manual_seed(1).initial_seed() and bool(torch.rand(()) == a)
        True
    """

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self._device = device
        self._states = {"cpu": torch.Generator().manual_seed(seed).get_state()}  # each uint8 (n,)
        if device != "cpu":
            self._states[device] = torch.Generator(device).manual_seed(seed).get_state()

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Puts the run's state into torch's generators, and back outside what was there."""
        others = self._read()
        self._write(self._states)
        try:
            yield
            self._states = self._read()  # not after an error: a step that was broken off is taken again
        finally:
            self._write(others)

    def state(self) -> dict[str, Tensor]:
        """The state of each generator by device name, uint8."""
        return {name: state.clone() for name, state in self._states.items()}

    def restore(self, states: Mapping[str, Tensor]) -> None:
        """Goes on where `state` was taken; a generator that this machine does not have is left out.

        Raises:
            ValueError: A state is of the wrong kind or size.
        """
        for name, own in self._states.items():
            saved = states.get(name)
            if saved is None:
                continue
            if saved.dtype != own.dtype or saved.shape != own.shape:
                found, wanted = (f"{t.dtype} {tuple(t.shape)}" for t in (saved, own))
                raise ValueError(f"random state of {name}: found {found}, this torch needs {wanted}")
            self._states[name] = saved.clone()

    def _read(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self._device != "cpu":
            states[self._device] = getattr(torch, self._device).get_rng_state()
        return states

    def _write(self, states: Mapping[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if self._device != "cpu":
            getattr(torch, self._device).set_rng_state(states[self._device])
