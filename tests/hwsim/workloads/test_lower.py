"""Planned files against real ones: the same bytes of descriptors, the same places."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import vq
from hwsim.program import Program, Step, assemble, steps_of_graph, work_of_layers
from hwsim.workloads import (
    INPUT,
    PlannedFile,
    PlannedWorkload,
    Workload,
    WorkloadLayer,
    plan_workload,
    workload,
    workload_of_container,
    workload_of_model,
)
from rtl import AcceleratorConfig
from rtl.program import PROGRAM_BYTES
from signbook.zoo.resnet import CifarResNet
from tests.hwsim.containers import Maker
from tests.hwsim.programs import SMALL, Net, Tokens, every_format, network
from vq.container import (
    ConfigError,
    Container,
    Kept,
    Layer,
    Provenance,
    open_container,
    write_container,
)
from vq.integer import read_integer


class ResNet20(CifarResNet):
    def __init__(self) -> None:
        super().__init__(3)


class Again(torch.nn.Module):
    """A layer that runs twice: one stream, read again."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.fc(x)))


def kept_of(container: Container) -> dict[str, tuple[str, tuple[int, ...]]]:
    found = ((name, container.kept(name)) for name in container.kept_names)
    return {name: (kept.dtype, kept.shape) for name, kept in found}


def require_twins(real: Program, planned: Program) -> None:
    assert planned.descriptors == real.descriptors
    assert len(real.descriptors) == PROGRAM_BYTES * len(real.layers)
    assert (planned.address, planned.records) == (real.address, real.records)
    # Bytes of the real program are where its image has them.
    there = bytes(real.image())[real.address : real.address + len(real.descriptors)]
    assert there == real.descriptors
    for a, b in zip(real.layers, planned.layers, strict=True):
        assert (a.rows, a.macs, a.read_bytes, a.written_bytes) == (
            b.rows, b.macs, b.read_bytes, b.written_bytes
        )  # fmt: skip
        assert a.weights is None or a.weights.padding_bytes == b.weights.padding_bytes  # type: ignore[union-attr]


def every_layer() -> list[Layer]:
    """Every format, a codebook that two layers share, and a convolution."""
    make, tile = Maker(3), {"tile_outputs": SMALL.rows}
    shared = {"codebook": make.codebook(16, 8, signed=False), "codebook_name": "shared"}
    both = [make.ssvq(name, (24, 64), 8, 16, **shared, **tile) for name in "ab"]
    conv = make.ssvq("conv", (16, 8, 3, 3), 4, 16, op="conv2d", **tile)
    return [both[0], *every_format(3), conv, both[1]]


@pytest.mark.parametrize("rows", [1, 70])
def test_planned_file_gives_the_descriptors_of_the_real_one(tmp_path: Path, rows: int) -> None:
    path, layers = tmp_path / "real.vq.safetensors", every_layer()
    kept = {"bias": Kept.from_numpy(np.zeros(7, np.float32)), "norm": Kept("BF16", (3,), bytes(6))}
    long = f'{{"{"a" * 5000}": 1}}'  # a page of the header
    write_container(path, layers, kept, Provenance("tool", long, 5))
    with open_container(path) as container:
        file = PlannedFile(
            [layer.geometry for layer in layers], kept_of(container), container.provenance
        )
        assert file.file_bytes == path.stat().st_size == container.file_bytes
        assert file.tensor_spans() == container.tensor_spans()
        assert file.layers == container.layers
        steps = [work.step for work in work_of_layers(container, rows)]
        twins = [
            dataclasses.replace(step, entry=entry)
            for step, entry in zip(steps, file.layers, strict=True)
        ]
        require_twins(assemble(steps, container, SMALL), assemble(twins, file, SMALL))


def test_another_file_gives_other_descriptors(tmp_path: Path) -> None:
    """One more kept name is enough, if it moves the data by a page."""
    geometries = [layer.geometry for layer in every_layer()]
    plain, longer = (PlannedFile(geometries, {n: ("F32", (1,))}) for n in ("a", "a" * 5000))
    assert longer.layers[0].stream.offset >= plain.layers[0].stream.offset + 4096


def test_layers_of_a_container_are_planned_as_they_are_run(tmp_path: Path) -> None:
    """A container without a graph, as ``--rows`` runs it, against its workload under a recipe."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(8, 16, 3), torch.nn.Conv2d(16, 16, 1),
        torch.nn.Conv2d(16, 16, 3, groups=16), torch.nn.Linear(16, 24),
    )  # fmt: skip
    recipe = vq.Recipe(
        {
            "*": vq.SSVQ(d=4, k=16, parity=True, tile_outputs=8),
            "1": vq.Int4(group=8, tile_outputs=8),
            "3": vq.Int8(tile_outputs=8),
        }
    )
    vq.compress_(model, recipe, seed=0, progress=False)
    path = tmp_path / "layers.vq.safetensors"
    vq.save(model, path)
    with open_container(path) as container:
        real = assemble([work.step for work in work_of_layers(container, 5)], container, SMALL)
        found = workload_of_container(path, rows=5)
        assert (found.name, found.trained) == ("layers", True)
        planned = plan_workload(found, recipe, SMALL, kept=kept_of(container))
        assert planned.file.tensor_spans() == container.tensor_spans()
    assert planned.left_out == {}
    require_twins(real, assemble(planned.steps, planned.file, SMALL))


@pytest.mark.parametrize(
    ("model", "shape"),
    [(Net, (3, 13, 12)), (Tokens, (6, 32)), (Again, (6, 32)), (ResNet20, (3, 32, 32))],
)
def test_network_is_planned_as_its_integer_graph_runs(
    tmp_path: Path, model: type, shape: tuple[int, ...]
) -> None:
    """From the traced model and from the file: the program that the real file gets."""
    config = dataclasses.replace(
        SMALL, input_bytes=1 << 16, output_bytes=1 << 15, accumulators=1024
    )
    recipe = vq.Recipe({"*": vq.SSVQ(d=4, k=16, tile_outputs=8)})
    path = network(tmp_path, model(), shape, recipe)
    traced = workload_of_model(model(), torch.rand(1, *shape))
    stored = workload_of_container(path)
    with open_container(path) as container:
        steps = steps_of_graph(read_integer(container), container)
        real = assemble(steps, container, config)
        kept = kept_of(container)
        file_bytes, spans = container.file_bytes, container.tensor_spans()
    for found in (traced, stored):
        assert found.macs == sum(step.macs for step in steps)
        planned = plan_workload(found, recipe, config, kept=kept)
        assert (planned.file.file_bytes, planned.file.tensor_spans()) == (file_bytes, spans)
        assert planned.left_out == {}
        twins = with_numbers_of(steps, planned.steps)
        require_twins(real, assemble(twins, planned.file, config))


def with_numbers_of(real: list[Step], planned: list[Step]) -> list[Step]:
    """Planned steps with what shapes do not say: numbers, and between which zeros channels lie."""
    twins = []
    for want, step in zip(real, planned, strict=True):
        assert (step.addition is None) == (want.addition is None)
        if step.addition is not None and want.addition is not None:
            step = dataclasses.replace(
                step, addition=dataclasses.replace(want.addition, tensor=step.addition.tensor)
            )
        twins.append(dataclasses.replace(step, relu=want.relu, first_channel=want.first_channel))
    return twins


def test_planned_program_has_no_image() -> None:
    planned = plan_workload(workload("resnet-20"), vq.Recipe({"*": vq.Int8()}), AcceleratorConfig())
    program = assemble(planned.steps, planned.file, AcceleratorConfig())
    with pytest.raises(ConfigError, match="file must exist for its image, not be planned only"):
        program.image()


def test_closed_container_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "real.vq.safetensors"
    write_container(path, every_format())
    with open_container(path) as container:
        steps = [work.step for work in work_of_layers(container, 1)]
    with pytest.raises(ConfigError, match="container must be open to be assembled"):
        assemble(steps, container, SMALL)


def blocks(count: int) -> Workload:
    return Workload(
        "blocks",
        tuple(
            WorkloadLayer(f"{count}.{{}}.{name}", "linear", 64, 64, rows=3, count=count)
            for name in ("q", "k")
        ),
    )


def total(planned: PlannedWorkload, config: AcceleratorConfig) -> tuple[int, int]:
    program = assemble(planned.steps, planned.file, config)
    return (
        sum(layer.macs * planned.counts[layer.step] for layer in program.layers),
        sum(layer.read_bytes * planned.counts[layer.step] for layer in program.layers),
    )


def test_blocks_once_and_each() -> None:
    config, recipe = AcceleratorConfig(), vq.Recipe({"*": vq.SSVQ(d=8, k=16)})
    each = plan_workload(blocks(5), recipe, config)
    once = plan_workload(blocks(5), recipe, config, once=True)
    assert [step.name for step in each.steps] == [f"5.{i}.{n}" for i in range(5) for n in "qk"]
    assert [step.name for step in once.steps] == ["5.0.q", "5.0.k"]
    assert set(each.counts.values()) == {1} and set(once.counts.values()) == {5}
    assert total(each, config) == total(once, config)
    assert once.file.file_bytes < each.file.file_bytes


def test_recipe_decides_for_every_repetition() -> None:
    recipe = vq.Recipe(
        {"5.0.*": vq.SSVQ(d=8, k=16), "5.1.q": vq.Int4(), "5.1.k": None, "*": vq.Int8()}
    )
    planned = plan_workload(blocks(5), recipe, AcceleratorConfig(rows=8, columns=16))
    assert [entry.geometry.method for entry in planned.file.layers] == [
        "ssvq", "ssvq", "int4", *["int8"] * 6
    ]  # fmt: skip
    assert {entry.geometry.tile_outputs for entry in planned.file.layers} == {8}
    assert planned.left_out == {"5.1.k": "kept by the recipe"}
    grouped = planned.steps[2].numbers
    assert grouped.group_scale.shape == (64, 1)


def test_shared_weights_are_one_stream() -> None:
    layers = (
        WorkloadLayer("fc", "linear", 64, 64),
        WorkloadLayer("again", "linear", 64, 64, shares="fc", sources=("fc",)),
    )
    config = AcceleratorConfig()
    planned = plan_workload(Workload("twice", layers), vq.Recipe({"*": vq.Int8()}), config)
    assert [entry.geometry.name for entry in planned.file.layers] == ["fc"]
    first, second = planned.steps
    assert first.entry == second.entry
    assert second.source is first.target


def test_an_operand_that_is_read_again_keeps_its_step() -> None:
    fields = {"height": 6, "width": 5}
    layers = (
        WorkloadLayer("stem", "conv2d", 16, 16, sources=(INPUT,), **fields),
        WorkloadLayer(
            "conv", "conv2d", 16, 16, kernel=(3, 3), padding=((0, 2), (2, 0)), dilation=(1, 1),
            sources=("stem",), **fields,
        ),
        WorkloadLayer("add", "add", 16, 16, sources=("stem", "conv"), **fields),
        WorkloadLayer("again", "conv2d", 16, 16, sources=("conv",), **fields),
    )  # fmt: skip
    planned = plan_workload(
        Workload("net", layers), vq.Recipe({"*": vq.Int8()}), AcceleratorConfig()
    )
    stem, conv, add, again = planned.steps
    assert [step.name for step in planned.steps] == ["stem", "conv", "add", "again"]
    assert conv.before == (0, 2)
    assert (conv.addition, add.entry, add.source) == (None, None, conv.target)
    assert add.addition is not None and add.addition.tensor is stem.target
    assert again.source is conv.target


def test_what_the_accelerator_does_not_run_is_left_out() -> None:
    config = AcceleratorConfig()
    recipe = vq.Recipe({"*": vq.SSVQ(d=8, k=16)})
    planned = plan_workload(workload("deit-tiny"), recipe, config)
    assert len(planned.steps) == 1 + 4 * 12 + 1
    assert planned.left_out["blocks.3.attn.scores"] == "matmul is not run by the accelerator"
    left = {name.rpartition(".")[2] for name in planned.left_out}
    assert left == {
        "scores", "softmax", "values", "norm1", "norm2", "norm", "act", "pos_embed"
    }  # fmt: skip
    patches, qkv, proj = planned.steps[:3]
    # The image lies by patches: 196 rows of 16 x 16 x 3.
    assert (patches.source.channels, patches.source.positions, patches.kernel) == (768, 196, (1, 1))
    assert qkv.source.name == "blocks.0.norm1"
    assert proj.name == "blocks.0.add1" and proj.addition is not None
    program = assemble(planned.steps, planned.file, config)
    whole = workload("deit-tiny")
    assert sum(layer.macs for layer in program.layers) == whole.macs - whole.matmul_macs


def test_pooling_that_does_not_fit_is_left_out_with_the_limit() -> None:
    recipe = vq.Recipe({"*": vq.Int8()})
    small = plan_workload(workload("resnet-50"), recipe, AcceleratorConfig())
    assert "must fit half of input_bytes = 65536" in small.left_out["avgpool"]
    large = plan_workload(workload("resnet-50"), recipe, AcceleratorConfig(input_bytes=1 << 18))
    assert set(large.left_out) == {"maxpool"}
    assert sum(step.addition is not None for step in large.steps) == 16


def test_all_misfits_are_in_one_error() -> None:
    recipe = vq.Recipe({"*": vq.SSVQ(d=16, k=4096), "5.0.q": vq.SSVQ(d=16, k=16, axis="out")})
    with pytest.raises(ConfigError) as error:
        plan_workload(blocks(5), recipe, AcceleratorConfig(rows=8))
    assert str(error.value).startswith(
        "recipe for 'blocks' has 10 problems:\n- layer '5.0.q': tile_"
    )
    assert "- layer '5.4.k': k must be at most its 256 sub-vectors, not 4096" in str(error.value)
    with pytest.raises(vq.errors.RecipeError, match=r"key 'fc' must match at least one layer"):
        plan_workload(blocks(5), vq.Recipe({"fc": vq.Int8()}), AcceleratorConfig())
