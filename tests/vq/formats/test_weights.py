"""What all compressed weights promise to torch and to training."""

import pytest
import torch

from vq import SSVQ, VQ, Int4, Int8
from vq.clustering.cluster import KMeans
from vq.errors import ConfigError
from vq.formats.format import Original

ROLES = {
    SSVQ(d=4, k=4): ("codebook", "signs"),
    VQ(d=4, k=4): ("codebook",),
    Int8(): ("weight",),
    Int4(): ("weight",),
}


@pytest.mark.parametrize("kind", ROLES, ids=str)
def test_roles_name_what_is_trained(kind):
    matrix = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    layer = Original(kind.geometry("a", "linear", (6, 8)), matrix)
    (weight,) = kind.compress([layer], KMeans())
    originals = weight.originals(matrix)
    assert weight.roles == ROLES[kind] and len(originals) == len(weight.roles)
    for role, tensor in zip(weight.roles, originals, strict=True):
        assert weight.tensor(role, originals) is tensor
    assert weight.tensor("other", originals) is None
    assert weight.norm_scale(*originals) is None  # each has a scale of its own


def test_a_weight_is_taken_once_unless_it_is_shared():
    matrix = torch.ones(2, 4)
    layer = Original(Int8().geometry("a", "linear", (2, 4)), matrix)
    (weight,) = Int8().compress([layer], KMeans())
    weight.right_inverse(matrix)
    with pytest.raises(ConfigError, match=r"^layer 'a': a compressed weight must not be assigned"):
        weight.right_inverse(matrix)
    weight.share()
    weight.right_inverse(matrix)
