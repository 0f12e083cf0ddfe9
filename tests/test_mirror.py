"""Tests mirror the rooms: vq/formats/grids.py has tests/vq/formats/test_grids.py."""

from pathlib import Path

from tests.test_architecture import ROOT, modules

#: Modules that have no such test, by the test that covers them.
ELSEWHERE = {
    "hwsim/cycles/test_predict": (
        "hwsim/cycles/ask hwsim/cycles/header hwsim/cycles/layers hwsim/cycles/library "
        "hwsim/cycles/machine rtl/control/account"
    ),
    "hwsim/measure/test_simulate": "hwsim/defaults hwsim/measure/checked hwsim/program/layers",
    "hwsim/memory/test_against_clocks": "hwsim/memory/dram",
    "hwsim/memory/test_data": "hwsim/memory/checks hwsim/memory/datasheet hwsim/memory/device",
    "hwsim/memory/test_ideal": "hwsim/memory/model",
    "hwsim/program/test_weights": "rtl/descriptor",
    "hwsim/simulator/axi/test_reads": (
        "hwsim/simulator/axi/address hwsim/simulator/axi/lite hwsim/simulator/axi/rules "
        "hwsim/simulator/axi/writes"
    ),
    "hwsim/simulator/test_accelerator": (
        "hwsim/simulator/accelerator_testbench hwsim/simulator/pins hwsim/simulator/playback"
    ),
    "hwsim/simulator/test_verilator": (
        "hwsim/simulator/streamer_testbench hwsim/simulator/toolchain hwsim/simulator/traffic"
    ),
    "hwsim/sweep/test_door": (
        "hwsim/sweep/crew hwsim/sweep/evaluate hwsim/sweep/journal hwsim/sweep/local "
        "hwsim/sweep/resume"
    ),
    "hwsim/sweep/test_space": "hwsim/sweep/grid",
    "hwsim/workloads/test_layers": (
        "hwsim/workloads/layer hwsim/workloads/ledger hwsim/workloads/network "
        "hwsim/workloads/planned hwsim/workloads/rest hwsim/workloads/stored"
    ),
    "hwsim/workloads/test_lower": "hwsim/program/graph hwsim/program/records",
    "hwsim/workloads/test_published": "hwsim/workloads/residual hwsim/workloads/transformers",
    "hwsim/workloads/test_trace": "hwsim/workloads/recorder",
    "rescomp/test_calibrate": (
        "rescomp/apply rescomp/checks rescomp/parts rescomp/resume rescomp/worker"
    ),
    "rescomp/test_identities": "rescomp/factor rescomp/levels rescomp/problem rescomp/solver",
    "rescomp/test_quantize": "rescomp/methods rescomp/settings",
    "rtl/build/test_emit": "rtl/control/document",
    "rtl/build/test_report": "rtl/build/synthesis",
    "rtl/compute/test_accumulate": "rtl/compute/array rtl/compute/residual",
    "rtl/compute/test_engine": "rtl/compute/vectors",
    "rtl/formal/test_indices": "rtl/decode/planes rtl/decode/router rtl/decode/sequencer",
    "rtl/formal/test_queue": "rtl/bus/queue",
    "rtl/formal/test_reads": "rtl/bus/axi rtl/bus/channel rtl/bus/dma",
    "rtl/test_accelerator": (
        "rtl/control/check rtl/control/fetch rtl/control/multiply rtl/control/run rtl/program "
        "rtl/transfer/load rtl/transfer/parameters rtl/transfer/store"
    ),
    "rtl/test_errors": "rtl/checker",
    "rtl/test_performance": "rtl/decode/counters",
    "rtl/test_streamer": (
        "rtl/decode/codebook rtl/decode/codes rtl/decode/decoder rtl/decode/gather "
        "rtl/decode/loader rtl/decode/parity rtl/decode/signs rtl/decode/weights rtl/decode/zeros"
    ),
    "signbook/commands/test_simulate": "signbook/commands/measuring signbook/commands/options",
    "signbook/data/test_images": "signbook/data/factories",
    "signbook/data/test_texts": "signbook/data/files",
    "signbook/packed/test_formats": (
        "signbook/packed/compressed_tensors signbook/packed/folder signbook/packed/gptq "
        "signbook/packed/words"
    ),
    "signbook/test_evaluation": "signbook/tasks",
    "signbook/test_naming": "signbook/hints",
    "signbook/test_report": (
        "signbook/plots/bars signbook/plots/front signbook/plots/layers signbook/plots/roofline "
        "signbook/plots/surface signbook/plots/training signbook/reporting/measured "
        "signbook/reporting/swept"
    ),
    "signbook/zoo/test_checkpoints": "signbook/zoo/minilm",
    "signbook/zoo/test_models": (
        "signbook/zoo/ddpm signbook/zoo/images signbook/zoo/resnet signbook/zoo/tiniest"
    ),
    "vq/container/test_codec": "vq/container/parity",
    "vq/container/test_spec": "vq/container/constants vq/container/metadata",
    "vq/container/test_writer": "vq/container/plan",
    "vq/hf/test_quantizer": "vq/hf/saving",
    "vq/integer/test_build": "vq/integer/calibrate vq/integer/trace",
    "vq/learning/test_finetune": "vq/learning/rules/rule",
    "vq/recipe/test_recipe": "vq/errors vq/recipe/selection",
    "vq/test_compress": "vq/version",
}
#: How many these are. The list only gets shorter: a module that is added comes with its test.
LENGTH = 118


def mirrored(name: str) -> Path:
    folder, _, module = name.rpartition("/")
    return ROOT / "tests" / folder / f"test_{module}.py"


def test_every_module_has_its_test_or_is_listed_with_another():
    listed = {name for names in ELSEWHERE.values() for name in names.split()}
    files = {name for name, file in modules().items() if file.name != "__init__.py"}
    without = {name for name in files if not mirrored(name).exists()}
    assert not without - listed, "these need a test of their own name"
    assert not listed - without, "these have their test, or are no more: take them off the list"
    assert len(listed) == LENGTH, "LENGTH must say how long the list is, and never grow"


def test_the_tests_that_are_listed_exist():
    for test in ELSEWHERE:
        assert (ROOT / "tests" / f"{test}.py").exists(), test
