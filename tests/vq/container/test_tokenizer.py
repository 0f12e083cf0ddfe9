"""What a file says of its tokenizer: what documents tell, and what no reader takes."""

import json

import pytest

from tests.vq.container.samples import one_of_each
from vq.container import ContainerError, Kept, open_container, write_container
from vq.container.tokenizer import read_tokenizer, tokenizer_facts

GOOD = {
    "version": 1, "kind": "tokenizers", "name": "", "ends": [2], "unknown": None,
    "tokenizer": {"model": {}},
}  # fmt: skip


def opened(folder, raw):
    path = folder / "words.vq.safetensors"
    kept = {} if raw is None else {"_tokenizer": Kept("U8", (len(raw),), raw)}
    write_container(path, [sample.layer for sample in one_of_each()], kept)
    return open_container(path)


def test_what_is_told(tmp_path):
    raw = json.dumps(GOOD | {"name": "small"}).encode()
    with opened(tmp_path, raw) as container:
        assert read_tokenizer(container) == GOOD | {"name": "small"}
        facts = {"kind": "tokenizers", "name": "small", "bytes": len(raw)}
        assert tokenizer_facts(container) == {"tokenizer": facts}
    with opened(tmp_path, json.dumps(GOOD).encode()) as container:
        assert read_tokenizer(container)["name"].startswith("sha256:")
    with opened(tmp_path, None) as container:
        assert read_tokenizer(container) is None and tokenizer_facts(container) == {}


@pytest.mark.parametrize("change", [{"version": 2}, {"tokenizer": []}, {"more": 1}, {"ends": 2}])
def test_what_is_refused(tmp_path, change):
    with (
        opened(tmp_path, json.dumps(GOOD | change).encode()) as container,
        pytest.raises(ContainerError, match=r"words.vq.safetensors: tensor '_tokenizer': "),
    ):
        read_tokenizer(container)
