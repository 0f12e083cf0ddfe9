"""Spaces: points in order, and everything that is wrong in one error."""

import hashlib
import re
from pathlib import Path

import pytest

from hwsim.sweep import Point, Space, read_space
from hwsim.workloads import recipe_of
from tests.hwsim.containers import Maker, write
from tests.hwsim.memory.configs import DDR4_3200, ini
from vq import SSVQ, Int4, Recipe
from vq.container import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "small.vq.safetensors", [Maker(0).ssvq("fc", (32, 32), 4, 16)])


def problems(document: dict) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Space.from_mapping(document)
    first, *lines = str(caught.value).splitlines()
    count = len(lines)
    assert first == f"sweep has {count} problem{'s' * (count > 1)}:"
    return [line.removeprefix("- ") for line in lines]


def test_points_are_the_product_in_order(file: Path) -> None:
    space = Space.from_mapping(
        {
            "targets": [str(file), "resnet-20"],
            "recipes": "int4",
            "memories": ["ddr4-2400", "hbm2"],
            "rows": ["1", 4],
            "accelerator": {"array": "16x16", "bus_bits": [64, "128"]},
        }
    )
    points = list(space.points())
    assert len(points) == len(space) == len(set(points)) == 2 * 2 * 2 + 2 * 2
    array = ("array", "16x16")
    assert points[0] == Point(str(file), None, "ddr4-2400", 1, (array, ("bus_bits", 64)))
    assert points[1].accelerator[1] == ("bus_bits", 128) and points[2].rows == 4
    assert points[-1] == Point("resnet-20", "int4", "hbm2", None, (array, ("bus_bits", 128)))
    assert [Point.from_json(point.to_json()) for point in points] == points
    assert list(space.files()) == [str(file)]


def test_what_is_left_out() -> None:
    space = Space.from_mapping({"targets": "resnet-20", "recipes": "int4"})
    (point,) = space.points()
    assert (space.engine, point.memory) == ("model", "ideal:bytes_per_cycle=16,latency=20")
    assert point.rows is None and point.accelerator == () and space.files() == {}


def test_all_problems_at_once() -> None:
    found = problems(
        {
            "target": "x",
            "targets": ["resnet-2"],
            "recipes": ["ssqv:d=8", "int4"],
            "memories": "ddr4",
            "rows": [0],
            "engine": "rtl",
            "accelerator": {"bus_bit": 64, "array": ["16x16", "17x16"], "bus_bits": 100},
        }
    )
    wanted = [
        r"key must be one of targets, .*, not 'target' \(did you mean 'targets'\?\)",
        r"workload must be one of .*, not 'resnet-2' .*",
        r"recipe 'ssqv:d=8': key '\*': method must be .*, not 'ssqv' \(did you mean 'ssvq'\?\)",
        r"memory must be one of .*, not 'ddr4'.*",
        r"rows must be a whole number from 1, not 0",
        r"engine must be model for a workload, which has no weights, not rtl",
        r"rows must stand beside a file: .*",
        r"key must be one of .*, not 'bus_bit' \(did you mean 'bus_bits'\?\)",
        r"rows must be 8, 16, 32 or 64, not 17",
        r"bus_bits must be 64, 128, 256 or 512, not 100",
    ]
    assert len(found) == len(wanted)
    for text, pattern in zip(found, wanted, strict=True):
        assert re.fullmatch(pattern, text), text


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "targets must be at least one file or workload, not none"),
        ({"targets": "resnet-20"}, "recipes must be given for a workload, such as ssvq:d=8,k=16"),
        (
            {"targets": "FILE", "recipes": "int4"},
            "recipes must stand beside a workload: a file has its own",
        ),
        ({"targets": "FILE", "engine": ["rtl", "model"]}, "engine must be given once, not 2 times"),
        ({"targets": "FILE", "accelerator": [1]}, "accelerator must map .*, not be \\[1\\]"),
        ({"targets": "FILE", "accelerator": {1: 2}}, "key must be one of .*, not '1'"),
        (
            {"targets": "FILE", "accelerator": {"bus_bits": []}},
            "bus_bits must have at least one value, not none",
        ),
        (
            {"targets": "FILE", "accelerator": {"array": "8x8", "rows": 8}},
            "array must stand without rows and columns, which it is short for",
        ),
        ({"targets": "absent.safetensors"}, "absent.safetensors: must be a readable file.*"),
    ],
)
def test_one_problem(document: dict, message: str, file: Path) -> None:
    if document.get("targets") == "FILE":
        document = document | {"targets": str(file)}
    (found,) = problems(document)
    assert re.fullmatch(message, found), found


@pytest.mark.parametrize(
    "settings",
    [
        {"array": ["8x8", "64x64", "8x64", "64x8"]},
        {"bus_bits": [64, 512], "d_max": [2, 16], "d_min": [2, 4]},
        {"scale_lanes": [1, 64], "burst_bytes": [64, 4096], "fifo_bytes": [128, 65536]},
        {"input_bytes": [128, 1 << 26], "output_bytes": [128, 1 << 26], "accumulators": 65536},
        {"index_bits_max": [5, 10], "int8_only": [0, 1], "address_bits": [16, 64]},
        {"codebook_rom": ["", "2x4:0102030405060708"]},
    ],
)
def test_values_that_some_instance_can_have_are_points(settings: dict, file: Path) -> None:
    assert len(Space.from_mapping({"targets": str(file), "accelerator": settings})) >= 2


def test_recipes_by_text(tmp_path: Path) -> None:
    assert recipe_of("ssvq:d=8,k=256,parity=true") == Recipe({"*": SSVQ(d=8, k=256, parity=True)})
    path = tmp_path / "r.yaml"
    path.write_text("'*': {method: int4, group: 64}\nconv1: null\n")
    assert recipe_of(str(path)) == Recipe({"*": Int4(group=64), "conv1": None})
    for text, message in (
        ("ssvq:k=x", r"key '\*': k must be a whole number, not 'x'"),
        ("ssvq:q=1", r"key '\*': ssvq has no setting 'q'"),
        ("ssvq:d=99", r"key '\*': d must be 1 to"),
    ):
        with pytest.raises(ConfigError, match=message):
            recipe_of(text)


def test_space_files(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("targets: resnet-20\naccelerator: {bus_bits: [64, 128]}\n")
    assert read_space(path)["accelerator"] == {"bus_bits": [64, 128]}
    for text, message in (("[1]", "must map axes to values"), ("a: [", "must be valid YAML")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=rf"^space .*space.yaml: {message}"):
            read_space(path)
    with pytest.raises(ConfigError, match=r"^space absent.yaml: must be a readable file"):
        read_space("absent.yaml")


def test_files_that_points_depend_on(tmp_path: Path) -> None:
    table, device = tmp_path / "net.csv", tmp_path / "device.ini"
    table.write_text("Layer, M, N, K,\nfc, 4, 8, 8,\n")
    device.write_text(ini(DDR4_3200))
    memories = ["ddr4-2400", f"{device}:clock_mhz=500", f"dram:ini={device},clock_mhz=800"]
    space = Space.from_mapping({"targets": str(table), "recipes": "int8", "memories": memories})
    digests = {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in (table, device)}
    assert space.files() == digests


def test_work_is_the_same_in_another_folder(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "net.csv").write_text("Layer, M, N, K,\nfc, 4, 8, 8,\n")
    (tmp_path / "device.ini").write_text(ini(DDR4_3200))
    monkeypatch.chdir(tmp_path)
    axes = {"recipes": "int8", "memories": "device.ini:clock_mhz=500"}
    space = Space.from_mapping({"targets": ["net.csv", "resnet-20"], **axes})
    works = [space.work(point) for point in space.points()]
    assert [work.target for work in works] == [str(tmp_path / "net.csv"), "resnet-20"]
    assert {work.memory for work in works} == {f"{tmp_path}/device.ini:clock_mhz=500"}
