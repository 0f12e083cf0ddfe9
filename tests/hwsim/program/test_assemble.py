"""Programs: what lies where, and what each descriptor reads and writes."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from hwsim.program import assemble, steps_of_layers
from hwsim.workloads import plan_workload, workload
from rtl import AcceleratorConfig
from rtl.program import PROGRAM_BYTES, PROGRAM_LAYER
from tests.hwsim.containers import write
from tests.hwsim.programs import SMALL, every_format
from vq import SSVQ, Recipe
from vq.container import GRANULE_BYTES, ConfigError, open_container


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("program") / "mixed.vq.safetensors"
    with open_container(write(path, every_format())) as opened:
        yield opened


def test_an_image_is_the_file_and_the_program(container):
    program = assemble(steps_of_layers(container, 3), container, SMALL)
    image = program.image()
    assert image[: container.file_bytes] == Path(container.path).read_bytes()
    assert len(program.descriptors) == PROGRAM_BYTES * len(program.layers)
    assert image[program.address :] == program.descriptors
    placed = sorted((p.address, p.address + p.nbytes) for p in program.places.values())
    assert container.file_bytes <= placed[0][0]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(placed))
    assert placed[-1][1] <= program.records < program.address


def test_descriptors_say_what_is_counted(container):
    program = assemble(steps_of_layers(container, 150), container, SMALL)
    steps = [layer.step for layer in program.layers]
    assert len(steps) > len(dict.fromkeys(steps)) == len(container.layers)  # strips
    for number, layer in enumerate(program.layers):
        raw = program.descriptors[PROGRAM_BYTES * number :][:PROGRAM_BYTES]
        fields = PROGRAM_LAYER.from_bits(int.from_bytes(raw, "little"))
        assert fields.store.record == program.records // GRANULE_BYTES + number
        assert fields.parameter_granules * GRANULE_BYTES == layer.parameter_bytes
        loads = [fields.load.input, fields.load.residual]
        loaded = sum(load.region.granules for load in loads if load.enable)
        assert loaded * GRANULE_BYTES == layer.activation_bytes
        assert (fields.store.region.granules + 1) * GRANULE_BYTES == layer.written_bytes
        assert fields.weights.stream_address == layer.weights.entry.stream.offset
    per_step: dict = {}
    for layer in program.layers:
        per_step[layer.step] = per_step.get(layer.step, 0) + layer.macs
    assert all(total == step.macs for step, total in per_step.items())


def test_a_planned_file_has_no_image():
    plan = plan_workload(workload("resnet-20"), Recipe({"*": SSVQ(d=8, k=16)}), AcceleratorConfig())
    program = assemble(plan.steps, plan.file, AcceleratorConfig())
    assert np.frombuffer(program.descriptors, np.uint8).any()
    with pytest.raises(ConfigError, match=r"^program: file must exist for its image, not be plan"):
        program.image()


def test_a_closed_file_is_refused(tmp_path):
    with open_container(write(tmp_path / "x.vq.safetensors", every_format())) as container:
        steps = steps_of_layers(container, 1)
    with pytest.raises(ConfigError, match=r"^container must be open to be assembled, but"):
        assemble(steps, container, SMALL)
