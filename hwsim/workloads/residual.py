"""Residual networks from their published configurations: shapes alone, no trained weights."""

from hwsim.workloads.layer import WorkloadLayer
from hwsim.workloads.network import Workload

__all__ = ["efficientnet_lite0", "resnet20", "resnet50"]

#: Blocks, their expansion, kernel, first stride and channels: Tan and Le 2019, table 1.
_EFFICIENTNET = (
    (1, 1, 3, 1, 16), (2, 6, 3, 2, 24), (2, 6, 5, 2, 40), (3, 6, 3, 2, 80), (3, 6, 5, 1, 112),
    (4, 6, 5, 2, 192), (1, 6, 3, 1, 320),
)  # fmt: skip


class _Builder:
    """Layers of a network of images, each on the output of one before it.

    A batch norm follows every convolution; it keeps two numbers for each output (its statistics
    are no parameters) and costs nothing, because it folds into the convolution's own numbers.
    """

    def __init__(self, size: int) -> None:
        self.layers: list[WorkloadLayer] = []
        self._shapes: dict[str, tuple[int, int]] = {"": (3, size)}

    def conv(
        self, name: str, source: str, outputs: int, kernel: int, stride: int = 1, *,
        before: int | None = None, groups: int = 1,
    ) -> str:  # fmt: skip
        """A convolution padded by half its kernel; at the start by ``before``, if that is given."""
        channels, size = self._shapes[source]
        pad = (kernel // 2 if before is None else before, kernel // 2)
        return self._push(
            WorkloadLayer(
                name, "conv2d", channels, outputs, height=size, width=size, kernel=(kernel, kernel),
                stride=(stride, stride), padding=(pad, pad), groups=groups, kept=2 * outputs,
                sources=(source,) if source else (),
            )
        )  # fmt: skip

    def move(self, name: str, op: str, *sources: str, outputs: int = 0, **window: int) -> str:
        """What has no weights: pooling, additions, shortcuts."""
        channels, size = self._shapes[sources[0]]
        kernel, stride, pad = (
            window.get(k, n) for k, n in (("kernel", 1), ("stride", 1), ("pad", 0))
        )
        return self._push(
            WorkloadLayer(
                name, op, channels, outputs or channels, height=size, width=size,
                kernel=(kernel, kernel), stride=(stride, stride),
                padding=((pad, pad), (pad, pad)), sources=sources,
            )
        )  # fmt: skip

    def linear(self, name: str, source: str, outputs: int) -> str:
        channels, _ = self._shapes[source]
        return self._push(
            WorkloadLayer(name, "linear", channels, outputs, kept=outputs, sources=(source,))
        )

    def _push(self, layer: WorkloadLayer) -> str:
        self.layers.append(layer)
        self._shapes[layer.name] = (layer.outputs, layer.out_height)
        return layer.name


def resnet50() -> Workload:
    """ResNet-50 for images of 224 pixels.

    He et al. 2015, arXiv 1512.03385, table 1, with the stride of a block in its 3x3 convolution,
    as torchvision and timm have it ("v1.5"); the paper has it in the first 1x1. Names are theirs.
    """
    net = _Builder(224)
    x = net.conv("conv1", "", 64, 7, 2)
    x = net.move("maxpool", "maxpool", x, kernel=3, stride=2, pad=1)
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(blocks):
            b = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = net.conv(f"{b}.conv1", x, width, 1)
            y = net.conv(f"{b}.conv2", y, width, 3, stride)
            y = net.conv(f"{b}.conv3", y, 4 * width, 1)
            if block == 0:
                x = net.conv(f"{b}.downsample.0", x, 4 * width, 1, stride)
            x = net.move(f"{b}.add", "add", y, x)
    x = net.move("avgpool", "avgpool", x, kernel=7)
    net.linear("fc", x, 1000)
    return Workload(
        "resnet-50", tuple(net.layers), source="ResNet-50 v1.5 at 224, arXiv 1512.03385, table 1"
    )


def resnet20() -> Workload:
    """ResNet-20 for CIFAR-10: He et al. 2015, section 4.2, shortcuts of option A.

    Such a shortcut takes every second pixel and adds channels of zeros; it has no weights.
    """
    net = _Builder(32)
    x = net.conv("conv1", "", 16, 3)
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(3):
            b = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = net.conv(f"{b}.conv1", x, width, 3, stride)
            y = net.conv(f"{b}.conv2", y, width, 3)
            if stride == 2:
                x = net.move(f"{b}.shortcut", "shortcut", x, outputs=width, stride=2)
            x = net.move(f"{b}.add", "add", y, x)
    x = net.move("avgpool", "avgpool", x, kernel=8)
    net.linear("linear", x, 10)
    return Workload(
        "resnet-20", tuple(net.layers), source="ResNet-20 for CIFAR-10, arXiv 1512.03385, 4.2"
    )


def efficientnet_lite0() -> Workload:
    """EfficientNet-Lite0 for images of 224 pixels.

    Tan and Le 2019, arXiv 1905.11946, table 1, in the form that TensorFlow published as Lite: no
    squeeze-and-excitation. Names are those of :mod:`signbook.zoo.efficientnet`.
    """
    net = _Builder(224)
    x, inputs, number = net.conv("stem", "", 32, 3, 2, before=0), 32, 0
    for blocks, expansion, kernel, first, outputs in _EFFICIENTNET:
        for block in range(blocks):
            b, stride, wide = f"blocks.{number}", 1 if block else first, expansion * inputs
            before = (kernel - stride) // 2  # TensorFlow's padding: one less, with stride 2
            y = net.conv(f"{b}.expand", x, wide, 1) if expansion > 1 else x
            y = net.conv(f"{b}.depthwise", y, wide, kernel, stride, before=before, groups=wide)
            y = net.conv(f"{b}.project", y, outputs, 1)
            x = net.move(f"{b}.add", "add", y, x) if block else y
            inputs, number = outputs, number + 1
    x = net.conv("head", x, 1280, 1)
    x = net.move("avgpool", "avgpool", x, kernel=7)
    net.linear("fc", x, 1000)
    return Workload(
        "efficientnet-lite0",
        tuple(net.layers),
        source="EfficientNet-Lite0 at 224, arXiv 1905.11946, table 1",
    )
