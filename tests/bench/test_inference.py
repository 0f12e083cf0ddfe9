"""The bench of packed inference: its arms on small models."""

import pytest
import torch

from bench import inference, llamacpp
from vq.inference.modules import packed_layers

pytest.importorskip("transformers")

SHAPES = inference.SHAPES


def test_shapes_are_never_dense_and_have_the_bits_of_their_arms():
    for arm, bits in (("ssvq@1.5", 1.5), ("ssvq@2.0", 2), ("ssvq@2.5", 2.5), ("ssvq@3.0", 3)):
        model, found = inference.made(SHAPES, arm, True)
        assert bits < found < bits + 0.3  # codebooks, and scales of 256 inputs
        assert len(list(packed_layers(model))) == 2 * 7 + 2
        assert not any(p.is_meta for p in model.parameters())
    tokens = inference.prompt_of(SHAPES, True)[None]
    with torch.no_grad():
        assert model(tokens).logits.isfinite().all()


@pytest.mark.parametrize(("arm", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_dense_shapes_have_their_dtype(arm, dtype):
    model, bits = inference.made(SHAPES, arm, True)
    assert {p.dtype for p in model.parameters()} == {dtype} and bits == 8 * dtype.itemsize


def test_torch_has_int8_in_the_place_of_every_linear():
    model, _ = inference.made(SHAPES, "torch-int8", True)
    kinds = [type(m).__module__ for m in model.modules() if type(m).__name__ == "Linear"]
    assert len(kinds) == 2 * 7 + 1 and all("quantized.dynamic" in kind for kind in kinds)


def test_speeds_count_tokens():
    model = inference.random_llama(inference.SMALL)
    calls: list[int] = []
    model.register_forward_pre_hook(
        lambda module, args, options: calls.append(args[0].shape[1]), with_kwargs=True
    )
    with torch.no_grad():
        found = inference.speeds(model, torch.arange(9), 3, 2)
    assert calls == [4, 9, 9, 1, 1, 1]
    assert found["decode_tokens_per_second"] > 0 < found["prefill_tokens_per_second"]


def test_what_is_skipped_says_why(monkeypatch):
    def why(work, arm, **options):
        return inference.lacking(work, arm, quick=options.get("quick", False))

    monkeypatch.setattr(inference, "available_bytes", lambda: 8e9)
    assert why(SHAPES, "fp32") == "it takes 27 GB of memory, and 8 are free"
    assert why(SHAPES, "ssvq@2.0") == "" == why(SHAPES, "fp32", quick=True)
    assert "real checkpoint alone" in why(SHAPES, "llama.cpp-q8_0")
    assert "on shapes alone" in why(inference.SMOLLM2, "ssvq@1.5")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert why(inference.SMOLLM2, "llama.cpp-q4_0") == (
        "package 'llama_cpp' is not installed (extra llama-cpp)"
    )
    assert "package 'transformers' is not installed" in why(inference.SMOLLM2, "bf16")


class Counting:
    """In the place of llama.cpp: the next token is the last one and one more, mostly."""

    def __init__(self) -> None:
        self.scores = torch.zeros(20, 10).numpy()

    def reset(self) -> None:
        self.scores[:] = 0

    def eval(self, tokens: list[int]) -> None:
        for place, token in enumerate(tokens):
            self.scores[place, (token + 1) % 10] = 3.0


def test_perplexity_is_that_of_signbook_eval():
    from signbook.evaluation import evaluate
    from signbook.tasks import LanguageModelling
    from tests.signbook.meters.tables import Table

    tokens = torch.tensor([[1, 2, 3, 5, 6], [0, 1, 7, 8, 9]])
    scored = torch.tensor([[False, True, True, True, True], [False, True, True, True, False]])
    task = LanguageModelling([(tokens, scored)])
    table = Table(3 * torch.eye(10).roll(1, 1))
    wanted = evaluate(table, task).metrics["perplexity"]
    assert llamacpp.perplexity(Counting(), task) == pytest.approx(wanted, rel=1e-6)


def test_a_checkpoint_is_written_as_its_file_has_it(tmp_path):
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    from signbook.naming import resolve_model
    from tests.signbook.writing.models import save_llama

    save_llama(tmp_path)
    llamacpp.write_gguf(tmp_path, tmp_path / "small.gguf")
    wanted, found = (resolve_model(f"hf:{p}") for p in (tmp_path, tmp_path / "small.gguf"))
    state = found.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in wanted.state_dict().items())
    tokens = torch.arange(30)[None]
    with torch.no_grad():
        assert torch.allclose(found(tokens).logits, wanted(tokens).logits, atol=1e-5)
