"""A file written again is the same file, but for its kept tensors."""

import pytest

from tests.vq.container.samples import KEPT, one_of_each
from vq.container import Kept, open_container, write_container
from vq.container.copying import layer_of, write_copy


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "every.vq.safetensors"
    write_container(file, [sample.layer for sample in one_of_each()], KEPT)
    return file


def test_a_copy_has_every_byte(path, tmp_path):
    with open_container(path) as container:
        kept = {name: container.kept(name) for name in container.kept_names}
        plan = write_copy(container, tmp_path / "copy.vq.safetensors", kept)
    copied = (tmp_path / "copy.vq.safetensors").read_bytes()
    assert copied == path.read_bytes() and len(copied) == plan.file_bytes


def test_a_file_can_replace_itself(path):
    with open_container(path) as container:
        before = {e.geometry.name: layer_of(container, e.geometry.name) for e in container.layers}
        write_copy(container, path, {"own": Kept("U8", (2,), b"ab")})
    with open_container(path) as container:
        assert container.kept_names == ("own",) and container.kept("own").data == b"ab"
        for name, layer in before.items():
            again = layer_of(container, name)
            assert again.geometry == layer.geometry
            assert (again.stream == layer.stream).all() and (again.scale == layer.scale).all()
