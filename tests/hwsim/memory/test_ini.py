"""Files in DRAMsim3's syntax: what is read, and every way in which one can be wrong."""

import copy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.memory import Device, parse_memory, read_ini
from hwsim.memory.ini import device_of_text
from tests.hwsim.memory.configs import DDR4_3200, HBM2, ini
from vq.errors import ConfigError


def changed(**entries: object) -> str:
    """A DDR4 file with keys that have other values; None leaves one out."""
    sections = copy.deepcopy(DDR4_3200)
    for key, value in entries.items():
        section = next(s for s in sections.values() if key in s)
        if value is None:
            del section[key]
        else:
            section[key] = value
    return ini(sections)


def test_ddr4() -> None:
    device = device_of_text(ini(DDR4_3200), "ddr4", "ddr4.ini")
    structure, timing, control = device.structure, device.timing, device.control
    assert (structure.ranks, structure.row_bytes, structure.column_bytes) == (2, 8192, 64)
    assert (structure.devices, structure.columns, structure.rows) == (8, 128, 65536)
    assert (timing.tCK_ps, timing.burst, timing.tRC) == (630, 4, 74)
    assert (timing.tRTW, timing.split_command_bus) == (22 + 4 - 16 + 1, 0)
    assert (control.window_columns, control.bank_queue_columns) == (32, 8)
    assert control.arbitration == "rotating"
    assert float(device.rails[0].IDD4R) == 168


def test_hbm() -> None:
    """Columns of HBM are two transfers wide, and commands have two buses."""
    device = device_of_text(ini(HBM2), "hbm2", "hbm2.ini")
    assert (device.structure.row_bytes, device.structure.columns) == (2048, 32)
    assert (device.timing.tRCDWR, device.timing.tRTP, device.timing.split_command_bus) == (14, 6, 1)


def test_added_latency_and_comments() -> None:
    text = changed(AL=10).replace("CL = 22", "cl = 22 ; in clocks\n# nothing")
    timing = device_of_text(text, "", "").timing
    assert (timing.CL, timing.CWL, timing.tRCDRD, timing.tRTP) == (32, 26, 12, 22)


def test_interval_by_its_other_name() -> None:
    text = ini(DDR4_3200).replace("tREFI = 12480", "REFI = 7290")
    assert device_of_text(text, "", "").timing.tREFI == 7290


def test_without_groups_the_short_distances_hold() -> None:
    timing = device_of_text(changed(bankgroups=1, banks_per_group=8), "", "").timing
    assert (timing.tCCD_L, timing.tRRD_L, timing.tWTR_L) == (4, 4, 4)


@pytest.mark.parametrize(
    ("entries", "key", "problem"),
    [
        ({"tRAS": 12}, "tRAS", "must be at least tRCD (22), not 12"),
        ({"tREFI": 500}, "tREFI", "must be above tRTP + tRP + tRFC + tRCD (616), not 500"),
        ({"tCCD_L": 2}, "tCCD_L", "must be at least tCCD_S (4), not 2"),
        ({"tRRD_L": 2}, "tRRD_L", "must be at least tRRD_S (4), not 2"),
        ({"tWTR_L": 2}, "tWTR_L", "must be at least tWTR_S (4), not 2"),
        ({"tFAW": 3}, "tFAW", "must be at least tRRD_S (4), not 3"),
        ({"tCK": 0}, "tCK", "must be above 0, not 0"),
        ({"CL": 0}, "CL", "must be at least 1, not 0"),
        ({"AL": 30}, "tRCD", "must be at least 1, not -8"),
        ({"tRCD": "x"}, "tRCD", "must be a whole number, not 'x'"),
        ({"tRCD": 1.5}, "tRCD", "must be a whole number, not '1.5'"),
        ({"tCK": "-1"}, "tCK", "must be a number, not '-1'"),
        ({"IDD4R": 20}, "IDD4R", "must be at least IDD3N (52), not 20"),
        ({"IDD4W": 20}, "IDD4W", "must be at least IDD3N (52), not 20"),
        ({"IDD5AB": 20}, "IDD5AB", "must be at least IDD3N (52), not 20"),
        ({"IDD3N": 20}, "IDD3N", "must be at least IDD2N (37), not 20"),
        ({"IDD0": 10}, "IDD0", "must be at least 47.54, the standby of its cycle, not 10"),
        ({"VDD": 0}, "VDD", "must be above 0, not 0"),
        ({"rows": 1000}, "rows", "must be a power of two, not 1000"),
        ({"bankgroups": 3}, "bankgroups", "must be a power of two, not 3"),
        ({"channels": 3}, "channels", "must be a power of two, not 3"),
        ({"channel_size": 25000}, "channel_size", "must be a power of two, not 3"),
        ({"bus_width": 60}, "bus_width", "must be a multiple of device_width (8), not 60"),
        ({"BL": 7}, "BL", "must be even, not 7"),
        ({"BL": 4096}, "columns", "must hold a column of 32768, not 8192"),
        (
            {"protocol": "DDR5"},
            "protocol",
            "must be DDR3 or DDR4 or LPDDR or LPDDR3 or LPDDR4 or HBM or HBM2, not 'DDR5' "
            "(did you mean 'DDR4'?)",
        ),
        (
            {"address_mapping": "rochraba"},
            "address_mapping",
            "must hold each of ro, ra, bg, ba, co, ch once, not 'rochraba'",
        ),
        (
            {"row_buf_policy": "CLOSE_PAGE"},
            "row_buf_policy",
            "must be OPEN_PAGE, not 'CLOSE_PAGE' (did you mean 'OPEN_PAGE'?)",
        ),
        ({"queue_structure": "X"}, "queue_structure", "must be PER_BANK, not 'X'"),
        ({"cmd_queue_size": 0}, "cmd_queue_size", "must be at least 1, not 0"),
    ],
)
def test_values_that_cannot_be(entries: dict, key: str, problem: str) -> None:
    text = changed(**entries)
    number = next(n for n, line in enumerate(text.splitlines(), 1) if line.startswith(f"{key} ="))
    with pytest.raises(ConfigError) as caught:
        device_of_text(text, "device", "device.ini")
    message = str(caught.value)
    assert message == f"memory file 'device.ini' has 1 problem:\n- line {number}: {key} {problem}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(tREFI=None), r"has 1 problem:\n- tREFI must be given in \[timing\]$"),
        (
            ini(DDR4_3200).replace("tREFI", "tREF"),
            r"- tREFI must be given in \[timing\]; line 19 has a key like it",
        ),
        ("[timing\n", r"- line 1: section must be \[NAME\], not '\[timing'"),
        ("[timing]\nCL 22\n", r"- line 2: must be KEY = VALUE, not 'CL 22'"),
        ("[timing]\nCL = 22\nCL = 22\n", r"- line 3: CL must be given once, not as in line 2"),
        ("", r"^memory file 'device.ini' has \d+ problems:"),
        (
            changed(protocol="HMC").replace("CL =", "C ="),
            r"has 1 problem:\n- line 2: protocol must",
        ),
    ],
)
def test_damaged_text(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        device_of_text(text, "device", "device.ini")
    assert str(caught.value).startswith("memory file 'device.ini' has ")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("NUM_BANKS=8\nNUM_ROWS=32768\nDEVICE_WIDTH=4\n;in nanoseconds\ntCK=1.5\n", "NUM_BANKS"),
        ("; system\nNUM_CHANS=1 ; channels\nJEDEC_DATA_BUS_BITS=64\n", "NUM_CHANS"),
        ("REFRESH_PERIOD=7800\r\ntCK=1.25\r\n", "REFRESH_PERIOD"),
        ("num_rows = 16384\nnum_cols = 1024\n", "NUM_ROWS"),
    ],
)
def test_files_of_dramsim2_are_recognised(text: str, key: str) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"^memory file 'x': must be .* DRAMsim3, not of DRAMsim2, whose key {key} ",
    ):
        device_of_text(text, "x", "x")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_byte_order_marks_are_no_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "some.ini"
    text = ini(DDR4_3200) if encoding != "utf-16-be" else "\ufeff" + ini(DDR4_3200)
    path.write_bytes(text.encode(encoding))
    assert read_ini(path) == device_of_text(ini(DDR4_3200), "some", "")


def test_all_problems_in_one_message() -> None:
    with pytest.raises(ConfigError) as caught:
        device_of_text(changed(tRCD="x", rows="y", tCK=None), "", "")
    assert str(caught.value).count("\n- ") == 3


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "some.ini"
    with pytest.raises(ConfigError, match=r"some\.ini': must be a readable file, but No such file"):
        read_ini(path)
    with pytest.raises(ConfigError, match=r"must be a readable file, but Is a directory$"):
        read_ini(tmp_path)
    path.write_bytes(b"\xff\x00[timing]")
    with pytest.raises(ConfigError, match=r"some\.ini': must be text in UTF-8, not b'"):
        read_ini(path)
    path.write_bytes(b"#" * (1 << 21))
    with pytest.raises(ConfigError, match=r"must be at most 1048576 bytes long"):
        read_ini(path)
    path.write_text(changed(tRAS=12))
    with pytest.raises(ConfigError, match=r"some\.ini' has 1 problem:\n- line 17: tRAS"):
        parse_memory(str(path))


_LINES = st.lists(
    st.one_of(
        st.sampled_from(ini(DDR4_3200).splitlines()),
        st.text(max_size=20),
        st.sampled_from(
            ("[timing]", "tCK = 1e9", "rows = 0", "BL = 0", "=", "[]", "CL = " + "9" * 30)
        ),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(_LINES)
def test_any_text_is_read_or_refused(lines: list[str]) -> None:
    try:
        device = device_of_text("\n".join(lines), "x", "x.ini")
    except ConfigError:
        return
    assert isinstance(device, Device)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_value_is_read_or_refused(data: st.DataObject) -> None:
    """One value of a good file is replaced; what is still accepted also works."""
    section = data.draw(st.sampled_from(sorted(DDR4_3200)))
    key = data.draw(st.sampled_from(sorted(DDR4_3200[section])))
    value = data.draw(
        st.one_of(st.integers(-2, 300), st.floats(0, 5), st.just("10" * 20), st.text(max_size=4))
    )
    try:
        device = device_of_text(changed(**{key: value}), "x", "x.ini")
    except ConfigError:
        return
    assert device.timing.tRC >= device.timing.tRAS
