"""FuseSoC's description of an instance."""

from pathlib import Path

import yaml

from rtl import StreamerConfig, write_verilog
from tests.hwsim.programs import SMALL
from vq.version import VERSION


def test_a_core_names_the_files_beside_it(tmp_path: Path) -> None:
    for config, top in ((SMALL, "signbook_accelerator"), (StreamerConfig(), "signbook_streamer")):
        path = write_verilog(config, tmp_path / f"{top}.v")
        first, rest = path.with_suffix(".core").read_text().split("\n", 1)
        assert first == "CAPI=2:"
        core = yaml.safe_load(rest)
        assert core["name"] == f"signbook:accelerators:{top}:{VERSION}"
        assert {target["toplevel"] for target in core["targets"].values()} == {top}
        listed = [file for files in core["filesets"].values() for file in files["files"]]
        names = [next(iter(file)) if isinstance(file, dict) else file for file in listed]
        made = {".v", ".h", ".c"} if config is SMALL else {".v"}
        assert set(names) == {f"{top}{suffix}" for suffix in made}
        assert all((tmp_path / name).exists() for name in names)
        assert f"module {top}(" in path.read_text()
