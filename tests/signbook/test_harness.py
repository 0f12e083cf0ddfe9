"""The wrapper for lm-evaluation-harness."""

import sys

import pytest
import torch

from signbook.harness import harness_model
from signbook.zoo.llama import Llama, LlamaConfig
from signbook.zoo.tokenizer import Tokenizer
from vq.errors import ConfigError

PIECES = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % i for i in range(256)), b" ", b"a", b"ab"]


def test_without_lm_eval(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"pip install 'signbook\[lm-eval\]'"):
        harness_model(torch.nn.Identity(), None)


@pytest.fixture
def parts():
    pytest.importorskip("lm_eval.api.model", exc_type=ImportError)
    tokenizer = Tokenizer(PIECES, [0.0] * len(PIECES))
    config = LlamaConfig(layers=1, vocabulary=len(PIECES), context=16)
    return Llama(config).eval(), tokenizer


def request(*arguments):
    from lm_eval.api.instance import Instance

    return Instance(request_type="loglikelihood", doc={}, arguments=arguments, idx=0)


def score(model, context, continuation):
    """Log-likelihood by definition."""
    with torch.no_grad():
        likely = model(torch.tensor([context + continuation]))[0].log_softmax(-1)
    places = range(len(context) - 1, len(context) + len(continuation) - 1)
    chosen = [float(likely[p, t]) for p, t in zip(places, continuation, strict=True)]
    greedy = all(int(likely[p].argmax()) == t for p, t in zip(places, continuation, strict=True))
    return sum(chosen), greedy


def test_loglikelihood(parts):
    model, tokenizer = parts
    wrapped = harness_model(model, tokenizer, length=16, batch=2)
    pairs = [("a", "b a"), ("ab a", " ab"), ("", "a"), ("b", "bbb")]
    found = wrapped.loglikelihood([request(*pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (value, greedy) in zip(pairs, found, strict=True):
        if context:
            whole = tokenizer.encode(context + continuation)
            before = tokenizer.encode(context)
        else:
            before, whole = [1], [1, *tokenizer.encode(continuation, bos=False)]
        wanted = score(model, before, whole[len(before) :])
        assert (value, greedy) == (pytest.approx(wanted[0], rel=1e-5), wanted[1])


def test_rolling_windows_predict_every_token_once(parts):
    model, tokenizer = parts
    text = "ab a b ab ab aa"  # more tokens than the model's 8
    wrapped = harness_model(model, tokenizer, length=8)
    (found,) = wrapped.loglikelihood_rolling([request(text)])
    tokens = [1, *tokenizer.encode(text, bos=False)]
    assert len(tokens) == 17
    wanted = score(model, tokens[:1], tokens[1:9])[0] + score(model, tokens[8:9], tokens[9:])[0]
    assert found == pytest.approx(wanted, rel=1e-5)


def test_generation_stops(parts):
    model, tokenizer = parts
    wrapped = harness_model(model, tokenizer, length=16)
    (text,) = wrapped.generate_until([request("a", {"until": [], "max_gen_toks": 5})])
    tokens = tokenizer.encode("a")
    with torch.no_grad():
        for _ in range(5):
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    assert "a" + text == tokenizer.decode(tokens)
    stop = text[-1]
    (cut,) = wrapped.generate_until([request("a", {"until": stop, "max_gen_toks": 5})])
    assert cut == text[: text.index(stop)]


@pytest.mark.filterwarnings("ignore")
def test_models_of_transformers_take_the_own_wrapper(parts, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("accelerate")
    config = transformers.LlamaConfig(
        vocab_size=4, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<s>": 0, "a": 1, "b": 2, "?": 3}, unk_token="?")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="<s>", pad_token="<s>", unk_token="?"
    )
    model = transformers.LlamaForCausalLM(config).eval()
    wrapped = harness_model(model, fast, length=16, device="cpu")
    ((value, _),) = wrapped.loglikelihood([request("a b", " a")], disable_tqdm=True)
    with torch.no_grad():
        wanted = model(torch.tensor([[1, 2]])).logits[0, -1].log_softmax(-1)[1]
    assert value == pytest.approx(float(wanted), rel=1e-4)
