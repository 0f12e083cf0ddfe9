"""How like real images generated ones are, by the features of a classifier."""

import torch
from torch import Tensor

from signbook.data.images import Images
from signbook.extras import require
from signbook.zoo.judge import Judge
from vq.errors import ConfigError

__all__ = ["class_agreement", "frechet_distance", "judged", "likeness", "precision_and_recall"]

_ROWS = 1024  # of distances that are in work at a time


def frechet_distance(generated: Tensor, real: Tensor) -> float:
    """Squared Fréchet distance of the normal distributions with the moments of two sets.

    ``|m1 - m2|² + tr(C1 + C2 - 2 sqrt(C1 C2))`` with unbiased covariances (Heusel et al., arXiv
    1706.08500). No root of a product of matrices is taken: with factors ``C = RᵀR``, the trace of
    the root is the sum of the singular values of ``R1 R2ᵀ``, never complex and good to the last
    digits where covariances are singular.

    Parameters
    ----------
    generated, real : [N, D] tensors
        Features; N may differ.

    Raises
    ------
    ConfigError
        If they are not finite, differ in D, or one has not more rows than D.
    """
    sets = _features(generated, real)
    for what, rows in zip(("generated", "real"), sets, strict=True):
        if len(rows) <= rows.shape[1]:
            raise ConfigError(
                f"{what} images must be more than the {rows.shape[1]} dimensions of their "
                f"features, not {len(rows)}: the covariance would be singular"
            )
    means = [rows.mean(0) for rows in sets]
    roots = [
        torch.linalg.qr(rows - mean, mode="r").R / (len(rows) - 1) ** 0.5
        for rows, mean in zip(sets, means, strict=True)
    ]
    traces = sum(root.square().sum() for root in roots)
    shared = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    distance = (means[0] - means[1]).square().sum() + traces - 2 * shared
    return max(0.0, float(distance))


def precision_and_recall(
    generated: Tensor, real: Tensor, *, neighbours: int = 3
) -> tuple[float, float]:
    """Shares of the generated that are like real ones, and of the real that are like generated.

    A set's manifold are balls around its members, each as far as its ``neighbours``-th nearest
    other member (Kynkäänniemi et al., arXiv 1904.06991); to be in one is to be alike.

    Parameters
    ----------
    generated, real : [N, D] tensors
        Features; N may differ, and should not by much.

    Raises
    ------
    ConfigError
        If they are not finite, differ in D, or are not more than the neighbours.
    """
    sets = _features(generated, real)
    most = min(map(len, sets)) - 1
    if not 1 <= neighbours <= most:
        raise ConfigError(
            f"neighbours must be 1 to {most}, one less than there are images, not {neighbours}"
        )
    return _covered(sets[0], sets[1], neighbours), _covered(sets[1], sets[0], neighbours)


def _covered(points: Tensor, members: Tensor, neighbours: int) -> float:
    """Share of points that are in the manifold of members."""
    trees = require("sklearn.neighbors", extra="demo", purpose="precision and recall")
    tree = trees.NearestNeighbors(n_neighbors=neighbours).fit(members.numpy())
    radii = torch.from_numpy(tree.kneighbors()[0][:, -1])  # of others: not of itself
    exact = "donot_use_mm_for_euclid_dist"
    inside = [
        (torch.cdist(part, members, compute_mode=exact) <= radii).any(1)
        for part in torch.split(points, _ROWS)
    ]
    return float(torch.cat(inside).double().mean())


def class_agreement(logits: Tensor, labels: Tensor) -> float:
    """Share of images that a classifier takes for what they were to be.

    Parameters
    ----------
    logits : [N, classes] tensor
    labels : [N] integer tensor

    Raises
    ------
    ConfigError
        If there are no images, or not as many as labels.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ConfigError(
            "class agreement must be of [images, classes] logits and as many labels, not "
            f"{list(logits.shape)} and {list(labels.shape)}"
        )
    return float((logits.argmax(1) == labels).double().mean())


def likeness(
    samples: Tensor,
    real: Images,
    judge: Judge,
    labels: Tensor | None = None,
    *,
    neighbours: int = 3,
) -> dict[str, float]:
    """Judge generated images.

    Parameters
    ----------
    samples : [N, 1, H, W] tensor
        Pixels in [-0.5, 0.5]; what is outside counts as black or white.
    real : Images
        That nothing was trained on.
    judge : Judge
        Trained.
    labels : [N] int64 tensor, optional
        What the samples were to be.
    neighbours : int
        See :func:`precision_and_recall`.

    Returns
    -------
    dict of str to float
        ``frechet``, ``precision``, ``recall``, and with labels ``agreement``.

    Raises
    ------
    ConfigError
        If the samples are not finite, too few, or of another size than the real images.
    """
    if samples.shape[1:] != real.x.shape[1:]:
        raise ConfigError(
            f"samples must be [images, {', '.join(map(str, real.x.shape[1:]))}], as the real ones, "
            f"not {list(samples.shape)}"
        )
    features, logits = judge.seen((samples.cpu() + 0.5).clamp(0, 1))
    known, _ = judge.seen(real.x.float() / 255)
    return judged(features, logits, known, labels, neighbours=neighbours)


def judged(
    features: Tensor,
    logits: Tensor,
    real: Tensor,
    labels: Tensor | None = None,
    *,
    neighbours: int = 3,
) -> dict[str, float]:
    """What :func:`likeness` gives, where a judge has seen all images already.

    Parameters
    ----------
    features, logits : [N, D] and [N, classes] tensors
        Of the samples.
    real : [M, D] tensor
        Features of real images.
    labels, neighbours
        As for :func:`likeness`.
    """
    precision, recall = precision_and_recall(features, real, neighbours=neighbours)
    found = {
        "frechet": frechet_distance(features, real), "precision": precision, "recall": recall
    }  # fmt: skip
    if labels is not None:
        found["agreement"] = class_agreement(logits, labels.cpu())
    return found


def _features(generated: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets in float64 on the CPU."""
    if generated.ndim != 2 or real.ndim != 2 or generated.shape[1] != real.shape[1]:
        raise ConfigError(
            "features must be [images, dimensions] with equal dimensions, not "
            f"{list(generated.shape)} and {list(real.shape)}"
        )
    sets = generated.detach().cpu().double(), real.detach().cpu().double()
    for what, rows in zip(("generated", "real"), sets, strict=True):
        if not torch.isfinite(rows).all():
            raise ConfigError(f"features of {what} images must be finite, not NaN or infinite")
    return sets
