"""The classifier that judges digits."""

import torch

from signbook.zoo import judge


def test_what_is_seen_are_features_and_what_the_last_layer_makes_of_them():
    model, images = judge.digits(), torch.rand(501, 1, 8, 8)
    features, logits = model.seen(images)
    assert features.shape == (501, judge.FEATURES) and logits.shape == (501, 10)
    assert not features.requires_grad
    torch.testing.assert_close(features[-1:], model.features(images[-1:]))
    torch.testing.assert_close(logits, model(images))
