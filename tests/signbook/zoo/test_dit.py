"""The diffusion transformer: where it starts, what its inputs reach, fused attention."""

import pytest
import torch
from torch import nn

from signbook.zoo import dit
from signbook.zoo.ddpm import noised
from signbook.zoo.dit import DiT
from vq.errors import ConfigError

NOISY, STEP, LABEL = torch.randn(3, 1, 8, 8), torch.tensor([1, 500, 1000]), torch.tensor([0, 9, 10])


def awake(**settings) -> DiT:
    """A small model in which nothing is zero any more."""
    model = DiT(8, patch=2, width=16, depth=2, **settings).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def test_blocks_start_as_the_identity_and_the_model_with_the_best_linear_guess():
    model = dit.digits()
    x, condition = torch.randn(3, 16, 64), torch.randn(3, 64)
    assert all(block(x, condition).equal(x) for block in model.blocks)
    clean, noise = torch.randn(2, 2000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for step in (1, 200, 500, 900):
        steps = torch.full((2000,), step)
        noisy = noised(clean / 2, steps, noise)
        error = noise - model(noisy, steps, steps % 11)
        together = torch.corrcoef(torch.stack([error.flatten(), noisy.flatten()]))[0, 1]
        assert abs(float(together)) < 0.02, "what is left of the noise cannot be had from pixels"
    assert not awake().blocks[0](x[..., :16], condition[:, :16]).equal(x[..., :16])


@torch.no_grad()
def test_fused_attention_is_the_same_with_the_same_weights():
    apart, fused = awake(), awake(fused=True)
    state = apart.state_dict()
    for block in ("blocks.0.attn", "blocks.1.attn"):
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{block}.{part}.{kind}") for part in "qkv"]
            state[f"{block}.qkv.{kind}"] = torch.cat(parts)
    fused.load_state_dict(state)
    torch.testing.assert_close(fused(NOISY, STEP, LABEL), apart(NOISY, STEP, LABEL))


@torch.no_grad()
def test_every_token_is_the_patch_of_its_place():
    """While blocks do nothing, a pixel reaches its own patch: row 1, column 2."""
    model = DiT(8, patch=2, width=16, depth=1)
    nn.init.normal_(model.out.weight)
    changed = NOISY.clone()
    changed[:, :, 2, 5] += 1
    other = (model(changed, STEP, LABEL) != model(NOISY, STEP, LABEL)).nonzero()
    assert {(row, column) for _, _, row, column in other.tolist()} == {
        (2, 4), (2, 5), (3, 4), (3, 5)
    }  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("place", [1, 2])
def test_step_and_class_reach_their_own_image(place):
    model, inputs = awake(), [NOISY, STEP, LABEL]
    before = model(*inputs)
    inputs[place] = inputs[place].clone()
    inputs[place][1] -= 1
    changed = (model(*inputs) - before).flatten(1).abs().amax(1) > 1e-3
    assert changed.tolist() == [False, True, False]


@torch.no_grad()
def test_attention_mixes_all_tokens_and_knows_their_places():
    model = awake()
    changed = NOISY.clone()
    changed[0, 0, 0, 0] += 1
    before = model(NOISY, STEP, LABEL)
    assert (model(changed, STEP, LABEL)[0] != before[0]).all()
    assert not torch.allclose(model(NOISY.flip(2), STEP, LABEL).flip(2), before, atol=1e-3)
    assert len(model.position.unique(dim=0)) == 16


@pytest.mark.parametrize(("factory", "count"), [(dit.digits, 221_184), (dit.mnist, 663_552)])
def test_named_models_are_as_large_as_they_say(factory, count):
    for fused in (False, True):
        model = factory(fused=fused)
        linears = [m for m in model.blocks.modules() if isinstance(m, nn.Linear)]
        assert sum(linear.weight.numel() for linear in linears) == count
        assert len(linears) == len(model.blocks) * (5 if fused else 7)
    assert model.shape[1:] == (model.shape[1],) * 2 and model.classes == 10


def test_sizes_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"size must be a multiple of 3, not 8\n.*width must be "
                       r"a multiple of 12, not 16"):  # fmt: skip
        DiT(8, patch=3, width=16, depth=1, heads=3)
    with pytest.raises(ConfigError, match="size must be a multiple of 2, not 0"):
        DiT(0, patch=2, width=16, depth=1)
