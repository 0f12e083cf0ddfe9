"""SCALE-Sim topologies: what its files look like, and what is wrong with others."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.workloads import Workload, WorkloadLayer, read_topology, write_topology
from signbook.data import data_folder
from vq.container import ConfigError

CONV = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, "
    "Strides,"
)
TOPOLOGIES = sorted((data_folder() / "scalesim_topologies").glob("*/*.csv"))


def read(folder: Path, text: str, name: str = "net.csv") -> Workload:
    path = folder / name
    path.write_bytes(text.encode())
    return read_topology(path)


def out_of(size: int, kernel: int, stride: int) -> int:
    """Positions as that tool counts them: the quotient is rounded up."""
    return -(-(size - kernel + stride) // stride)


def test_convolutions(tmp_path: Path) -> None:
    workload = read(
        tmp_path,
        f"\ufeff{CONV},,Eh,Ew,e2\r\n,,,,,,,,,\r\n"
        "Conv1 , 224 ,224, 7,7,3,64,2,,,110,110,12100\r\n"
        "\r\nBlock 1,\r\n"
        "Attn_QxK', 1, 1, 1, 1, 64, 10, 1,\r\n"
        "Attn_QxK', 1, 1, 1, 1, 64, 10, 1,\r\n"
        "DP_one, 8, 8, 3, 3, 16, 1, 1,\r\n"
        "FC, 5, 40, 1, 40, 1, 12, 1,",
    )
    assert (workload.name, workload.trained) == ("net", False)
    assert workload.source == "SCALE-Sim topology net.csv"
    conv, first, second, depthwise, fc = workload.layers
    # 110 positions need one more column than there is: (224 - 7) is odd.
    assert (conv.out_height, conv.out_width, conv.padding) == (110, 110, ((0, 1), (0, 1)))
    assert conv.macs == 110 * 110 * 7 * 7 * 3 * 64
    assert (first.name, second.name) == ("Attn_QxK'", "Attn_QxK':2")
    assert (depthwise.groups, depthwise.outputs, depthwise.macs) == (16, 16, 36 * 9 * 16)
    assert (fc.op, fc.rows, fc.inputs, fc.outputs) == ("linear", 5, 40, 12)


@pytest.mark.parametrize(
    ("names", "size", "kernel"),
    [
        ("IFMAP Width, IFMAP Width, Filter Height, Filter Width", (40, 20), (5, 3)),
        ("IFMAP Height, IFMAP Height, Filter Height, Filter Width", (40, 20), (5, 3)),
        ("ifmap width,ifmap width,filter width,filter width", (40, 20), (5, 3)),
        ("IFMAP_Height, IFMAP_Width, Filter Width, Filter Width", (40, 20), (5, 3)),
    ],
)
def test_one_side_named_for_both(tmp_path: Path, names: str, size: object, kernel: object) -> None:
    text = f"Layer, {names}, Channels, Num Filter, Strides,\nconv, 40, 20, 5, 3, 1, 32, 2,\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "net.csv").write_bytes(text.encode(encoding))
        (layer,) = read_topology(tmp_path / "net.csv").layers
        assert ((layer.height, layer.width), layer.kernel) == (size, kernel)


def test_sides_that_are_swapped_are_refused(tmp_path: Path) -> None:
    swapped = CONV.replace("IFMAP Height, IFMAP Width", "IFMAP Width, IFMAP Height")
    with pytest.raises(ConfigError, match=r"line 1, column 2: must be named 'ifmap height', or "):
        read(tmp_path, f"{swapped}\nconv, 40, 20, 5, 3, 1, 32, 2,\n")


def test_matrix_products(tmp_path: Path) -> None:
    workload = read(tmp_path, "Layer,M,N,K,Batch\nL0, 196,192,768,\n1,2,3,4,5\n")
    first, second = workload.layers
    assert (first.rows, first.outputs, first.inputs) == (196, 192, 768)
    assert (second.name, second.rows) == ("1", 10)
    assert workload.macs == 196 * 192 * 768 + 10 * 3 * 4


def test_sparsity_is_noted(tmp_path: Path) -> None:
    conv = read(tmp_path, f"{CONV} Sparsity,\na,8,8,3,3,4,4,1,2:4,\nb,8,8,3,3,4,4,1,1:1,\n")
    assert [layer.note for layer in conv.layers] == ["2:4 sparse in the file, taken as dense", ""]
    gemm = read(tmp_path, "Layer,M,N,K,\na,8,8,3,1:4,\n")  # the header need not name it
    assert gemm.layers[0].note == "1:4 sparse in the file, taken as dense"


def test_every_problem_names_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read(
            tmp_path,
            f"{CONV} Sparsity, Batch Size,\n"
            "\n"
            "a, 8, 8, 3, 3, 4, 4,\n"
            "b, 8, x8, 3, 3, 4, 0, 1,,\n"
            ", 8, 8, 3, 3, 4, 4, 1,,\n"
            "c, 8, 8, 9, 3, 4, 4, 1, 1:1,\n"
            "d, 8, 8, 3, 3, 4, 4, 1, 5:4, 2,\n"
            "e, 8, 8, 3, 3, 4.5, 4, 1, dense,\n",
        )
    heading, *problems = str(error.value).split("\n- ")
    assert heading == f"{tmp_path / 'net.csv'}: topology has 9 problems:"
    whole = "must be a whole number from 1 to 4294967295, not"
    ratio = "must be a ratio N:M with N from 1 to M, not"
    assert sorted(problems) == sorted(
        [
            "line 3, column 8 (strides): must be a whole number, not missing",
            f"line 4, column 3 (ifmap width): {whole} 'x8'",
            f"line 4, column 7 (num filter): {whole} '0'",
            "line 5, column 1 (layer name): must be text, not empty",
            "line 6: filter of 9 x 3 must fit the input of 8 x 8",
            f"line 7, column 9 (sparsity): {ratio} '5:4'",
            "line 7, column 10 (batch size): must be 1, not 2",
            f"line 8, column 6 (channels): {whole} '4.5'",
            f"line 8, column 9 (sparsity): {ratio} 'dense'",
        ]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with a line of column names, not be empty"),
        ("\n , ,\n", "must begin with a line of column names, not be empty"),
        (f"{CONV}\n\n", "rows must be at least one, not none"),
        ("Conv1,8,8,3,3,4,4,1,\n", "line 1, column 2: must be named 'ifmap height', or the table "),
        ("Layer,M,K,N,\na,1,2,3,", "line 1, column 2: must be named 'ifmap height'"),
        (CONV.replace("Channels, ", ""), "column 6: must be named 'channels', or .*'Num Filter'$"),
        (
            f'{CONV}\n"a,8,8',
            "line 2: must be comma-separated values, but a quotation in it does not end",
        ),
    ],
)
def test_what_is_no_topology_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"x\.csv: must be text in UTF-8, not b"):
        read_topology(tmp_path / "x.csv")
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(ConfigError, match=r": must be a readable file, but (No such|Is a)"):
            read_topology(path)


_SIZES = st.integers(1, 300)
_ROW = st.tuples(
    _SIZES, _SIZES, st.integers(1, 9), st.integers(1, 9), _SIZES, _SIZES, st.integers(1, 4)
)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(_ROW, min_size=1, max_size=4),
    space=st.sampled_from(["", " ", "   ", "\t"]),
    end=st.sampled_from(["", ",", ", ", ",,,"]),
    newline=st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_spaces_and_commas_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, rows: list, space: str, end: str, newline: str
) -> None:
    rows = [(h, w, min(kh, h), min(kw, w), c, f, s) for h, w, kh, kw, c, f, s in rows]
    lines = [f"{space},{space}".join([f"L{i}", *map(str, row)]) for i, row in enumerate(rows)]
    text = newline.join([CONV, *(line + end for line in lines)])
    folder = tmp_path_factory.getbasetemp()
    workload = read(folder, text)
    for layer, (h, w, kh, kw, c, f, s) in zip(workload.layers, rows, strict=True):
        assert layer.macs == out_of(h, kh, s) * out_of(w, kw, s) * kh * kw * c * f
        assert layer.weights == kh * kw * c * f
    again = folder / "again.csv"
    assert write_topology(workload, again) == []
    assert [x.macs for x in read_topology(again).layers] == [x.macs for x in workload.layers]


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from('abM,: \n"1290.-DP'), max_size=80))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    for header in ("", f"{CONV}\n", "Layer,M,N,K,\n"):
        try:
            read(tmp_path_factory.getbasetemp(), header + text)
        except ConfigError as error:
            assert "net.csv" in str(error)


def test_writing(tmp_path: Path) -> None:
    workload = Workload(
        "mixed",
        (
            WorkloadLayer(
                "a,b", "conv2d", 3, 8, height=224, width=224, kernel=(7, 7), stride=(2, 2),
                padding=((3, 3), (3, 3)),
            ),
            WorkloadLayer("pool", "maxpool", 8, 8, height=112, width=112, kernel=(2, 2)),
            WorkloadLayer(
                "dw", "conv2d", 8, 8, height=9, width=9, kernel=(3, 3), groups=8
            ),
            WorkloadLayer("grouped", "conv2d", 8, 4, height=9, width=9, groups=2),
            WorkloadLayer("scores", "matmul", 16, 5, rows=7, groups=2),
            WorkloadLayer("MLP_DP{}", "linear", 16, 5, rows=7, count=2),
        ),
    )  # fmt: skip
    path = tmp_path / "mixed.csv"
    assert write_topology(workload, path) == ["pool"]
    assert path.read_text() == (
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, "
        "Num Filter, Strides,\n"
        # 112 positions two apart see 229 of the 230 padded pixels.
        "a_b, 229, 229, 7, 7, 3, 8, 2,\n"
        "DP_dw, 9, 9, 3, 3, 8, 1, 1,\n"
        "grouped/0, 9, 9, 1, 1, 4, 2, 1,\n"
        "grouped/1, 9, 9, 1, 1, 4, 2, 1,\n"
        "scores/0, 7, 16, 1, 16, 1, 5, 1,\n"
        "scores/1, 7, 16, 1, 16, 1, 5, 1,\n"
        "MLP_dp0, 7, 16, 1, 16, 1, 5, 1,\n"
        "MLP_dp1, 7, 16, 1, 16, 1, 5, 1,\n"
    )
    assert read_topology(path).macs == workload.macs
    linears = Workload("linears", workload.layers[4:])
    assert write_topology(linears, path) == []
    assert path.read_text().splitlines()[:2] == ["Layer, M, N, K,", "scores/0, 7, 5, 16,"]
    assert read_topology(path).macs == linears.macs


def test_what_a_topology_cannot_say_is_refused(tmp_path: Path) -> None:
    layers = (
        WorkloadLayer("a", "conv2d", 3, 8, height=9, width=9, stride=(2, 1)),
        WorkloadLayer("b", "conv2d", 3, 8, height=9, width=9, dilation=(2, 2)),
    )
    with pytest.raises(ConfigError) as error:
        write_topology(Workload("net", layers), tmp_path / "x.csv")
    assert str(error.value) == (
        "workload 'net' as a topology has 2 problems:\n"
        "- layer 'a': strides must be equal, not (2, 1)\n"
        "- layer 'b': dilation must be 1, not (2, 2)"
    )
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.skipif(not TOPOLOGIES, reason="no SCALE-Sim topologies; set SIGNBOOK_DATA")
def test_published_topologies(tmp_path: Path) -> None:
    assert len(TOPOLOGIES) >= 12
    for path in TOPOLOGIES:
        workload = read_topology(path)
        write_topology(workload, tmp_path / "again.csv")
        again = read_topology(tmp_path / "again.csv")
        assert (again.macs, again.weights) == (workload.macs, workload.weights), path.name
    by_name = {path.stem: read_topology(path) for path in TOPOLOGIES}
    # Without padding, but the weights are those of the network; without biases and norms.
    assert by_name["Resnet50"].weights == 25_502_912
    assert len(by_name["Resnet50"].layers) == 54
    assert by_name["vit_s"].layers[0].rows == 196
