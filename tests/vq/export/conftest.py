"""What several exports are tried on."""

import pytest

from tests.vq.container.samples import KEPT, coded, one_of_each
from vq.container import write_container


@pytest.fixture
def every(tmp_path):
    """A container with a layer of each kind, and its samples."""
    samples = [*one_of_each(), coded("t", shape=(6, 10), transposed=True, seed=3)]
    path = tmp_path / "every.vq.safetensors"
    write_container(path, [s.layer for s in samples], KEPT)
    return path, samples
