"""The inputs of a layer as rows of the matrix product that it is."""

from torch import Tensor, nn

__all__ = ["geometry_key", "parts_of", "rows_of"]


def parts_of(module: nn.Module) -> int:
    """Parts of the outputs that see inputs of their own: the groups of a convolution, else 1."""
    found = getattr(module, "groups", 1)
    return found if isinstance(found, int) else 1


def geometry_key(module: nn.Module) -> tuple[object, ...]:
    """What layers that are called with one tensor must share for their rows to be equal."""
    if not isinstance(module, nn.Conv1d | nn.Conv2d):
        return ()
    return (
        module.kernel_size, module.stride, module.padding, module.dilation, module.groups,
        module.padding_mode,
    )  # fmt: skip


def rows_of(module: nn.Module, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    """Inputs of a call as rows, [tokens, I] for each of :func:`parts_of` the module.

    Parameters
    ----------
    module : nn.Module
        A linear layer, or a convolution: its patches are rows, channels innermost, as in the
        container's matrices.
    x : Tensor
        First argument of the call.
    mask : [B, T] bool, optional
        Which tokens count. Ignored where ``x`` is neither [B, T, I] nor [B * T, I].
    """
    if not isinstance(module, nn.Conv1d | nn.Conv2d):
        if mask is not None and x.shape[:-1] in (mask.shape, (mask.numel(),)):
            x = x[mask.reshape(x.shape[:-1])]
        return [x.reshape(-1, x.shape[-1])]
    dimensions = len(module.kernel_size)
    x = x.reshape(-1, *x.shape[-(dimensions + 1) :])
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = nn.functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    if dimensions == 1:
        x = x[:, :, None]
        kernel, stride, dilation = (1, *kernel), (1, *stride), (1, *dilation)
    patches = nn.functional.unfold(x, kernel, dilation, 0, stride)
    taps = kernel[0] * kernel[1]
    parts = patches.reshape(len(x), module.groups, -1, taps, patches.shape[-1])
    return list(parts.permute(1, 0, 4, 3, 2).reshape(module.groups, -1, parts.shape[2] * taps))
