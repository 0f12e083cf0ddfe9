"""Devices by name: those that this machine has."""

import pytest

from vq.errors import ConfigError
from vq.inference.device import choose_device


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:99", "meta"):
        with pytest.raises(ConfigError, match=f"that this machine has, not '{name}'"):
            choose_device(name)
