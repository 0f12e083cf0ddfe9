"""The door: names, settings, files, and hints for what is none of them."""

from pathlib import Path

import pytest

from hwsim.workloads import BUILT_IN, workload
from tests.hwsim.containers import Maker, write
from vq.container import ConfigError, ContainerError


def test_every_built_in_name_opens() -> None:
    for name in BUILT_IN:
        assert workload(name).name == name


def test_settings() -> None:
    assert workload("llama-2-7b: m=3 , context=5").layers[2].rows == 3
    assert workload("minilm-l6:tokens=7").layers[0].rows == 7
    assert workload("llama-2-7b:prefill=0") == workload("llama-2-7b")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "net:a=1.csv"
    path.write_text("Layer,M,N,K,\na,1,2,3,\n")
    assert workload(str(path)).name == "net:a=1"
    path = write(tmp_path / "x.vq.safetensors", [Maker().int8("fc", (8, 16))])
    assert [workload(f"{path}{end}").layers[0].rows for end in ("", ":rows=5")] == [1, 5]
    (tmp_path / "bad.safetensors").write_bytes(b"no container")
    with pytest.raises(ContainerError, match=r"bad\.safetensors"):
        workload(str(tmp_path / "bad.safetensors"))
    with pytest.raises(ConfigError, match=r"absent\.csv: must be a readable file"):
        workload(str(tmp_path / "absent.csv"))
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(ConfigError, match="which is a file of another kind"):
        workload(str(tmp_path / "net.onnx"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("diet-tiny", r"not 'diet-tiny' \(did you mean 'deit-tiny'\?\)$"),
        ("Llama-2-7B:m=1", r"\(did you mean 'llama-2-7b'\?\)$"),
        ("", r"a \.csv topology or a container, not ''$"),
        (
            "llama-2-7b:contxt=5",
            r"must be one of m, context, prefill, not 'contxt' \(did you mean 'c",
        ),
        ("llama-2-7b:m", r"m must be a whole number from 1 to 1048576, not ''$"),
        ("llama-2-7b:m=0,m=2,context=x", r"has 2 problems:\n- m must .* not '0'\n- context must"),
        ("llama-2-7b:m=1,m=2", "m must be given once, not twice"),
        (
            "llama-2-7b:m=1,prefill=2",
            "must be a prefill or a decoding with m and context, not both",
        ),
        ("minilm-l6:tokens=513", r"tokens must be a whole number from 1 to 512, not '513'"),
        ("resnet-50:size=7", r"it has no settings, not 'size'$"),
        (
            "x.safetensors:row=7",
            r"setting must be one of rows, not 'row' \(did you mean 'rows'\?\)",
        ),
    ],
)
def test_what_leads_nowhere_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        workload(text)
