"""How the surroundings of a simulated streamer behave."""

from dataclasses import dataclass

__all__ = ["Traffic"]


@dataclass(frozen=True)
class Traffic:
    """How the surroundings of the streamer behave.

    Attributes
    ----------
    seed : int
        Of all random choices below.
    ar_idle, r_idle, weights_idle, report_idle, descriptor_idle : float
        Probability, 0 to below 1, that a cycle passes in which the address channel is not
        ready, no data beat is offered, weights or reports are not taken, no descriptor is
        offered. An offer once made is held until it is taken.
    even_weights : bool
        Take weights at even intervals at the rate ``1 - weights_idle`` instead of at random.
    error_granules : tuple of int
        Numbers of 64-byte granules whose bursts are answered with a slave error.
    """

    seed: int = 0
    ar_idle: float = 0.0
    r_idle: float = 0.0
    weights_idle: float = 0.0
    report_idle: float = 0.0
    descriptor_idle: float = 0.0
    even_weights: bool = False
    error_granules: tuple[int, ...] = ()
