"""Networks of diffusers as ``model(x, t, *condition)``, which gives the noise in ``x``."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from signbook.extras import require
from signbook.zoo.hub import reason
from vq.errors import ConfigError

__all__ = ["Network", "diffusers_model"]

#: Classes of diffusers that are adapted, and what each is told beside image and step.
_TOLD = {
    "UNet2DModel": "label",
    "UNet2DConditionModel": "text",
    "DiTTransformer2DModel": "label",
}
#: What else a network may ask for, which is not adapted.
_OTHER = (
    "class_embed_type", "addition_embed_type", "encoder_hid_dim_type", "encoder_hid_dim",
    "time_cond_proj_dim", "num_class_embeds",
)  # fmt: skip
#: Noise [B, C, H, W] from what a network predicts, its input, and the roots of the shares of image
#: and noise in it. The velocity is that of Salimans and Ho (arXiv 2202.00512).
_NOISE: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda found, x, image, noise: found,
    "v_prediction": lambda found, x, image, noise: image * found + noise * x,
    "sample": lambda found, x, image, noise: (x - image * found) / noise,
}


class Network(nn.Module):
    """A noise predictor made of a network of diffusers.

    Takes noisy images [B, channels, height, width], steps [B] and what the network is told:
    nothing, labels [B], or vectors of a text [B, tokens, width]; gives the noise in the shape of
    the images. A variance that the network predicts, too, is cut off.

    Parameters
    ----------
    network : nn.Module
        A UNet2DModel, UNet2DConditionModel or DiTTransformer2DModel.
    scheduler : scheduler of diffusers, optional
        Whose schedule it was trained on. If by this it predicts the image or the velocity, that is
        turned into noise. Without one, it predicts noise.

    Attributes
    ----------
    network : nn.Module
    scheduler : scheduler of diffusers, or None
    shape : (int, int, int)
        Of an image: channels, height, width.
    classes : int or None
        How many it knows; one that is told a text has no such attribute. This number itself stands
        for none of them in a DiTTransformer2DModel alone.

    Raises
    ------
    ConfigError
        If the network is another, says no size of its images, gives something else than noise, or
        asks for a condition beside labels or text; if the scheduler predicts something else.
    """

    share: Tensor

    def __init__(self, network: nn.Module, scheduler: Any = None) -> None:
        super().__init__()
        kind = type(network).__name__
        if kind not in _TOLD:
            raise ConfigError(f"network must be one of {', '.join(_TOLD)}, not {kind}")
        config: Any = network.config
        self.network, self.scheduler, self._kind = network, scheduler, kind
        self.shape = (config.in_channels, *_sides(config.sample_size, kind))
        self._told = _TOLD[kind]
        if self._told == "text":
            self._width = _text_width(config)
        else:
            self.classes, self._most = _classes(config, kind)
        channels = config.out_channels or config.in_channels
        if channels not in (config.in_channels, 2 * config.in_channels):
            raise ConfigError(
                f"{kind} must give {config.in_channels} channels, as many as it takes, or a "
                f"variance for each of them, too, not {channels}"
            )
        self._predicts, share = _prediction(scheduler)
        self.register_buffer("share", share, persistent=False)

    def forward(self, noisy: Tensor, step: Tensor, *condition: Tensor) -> Tensor:
        self._require(noisy, step, condition)
        if self._told == "text":
            found = self.network(noisy, step, encoder_hidden_states=condition[0])
        elif self.classes is None:
            found = self.network(noisy, step)
        else:
            found = self.network(noisy, step, class_labels=condition[0])
        kept: Tensor = found.sample[:, : self.shape[0]]
        if self._predicts == "epsilon":
            return kept
        left = self.share[step, None, None, None].to(noisy)
        return _NOISE[self._predicts](kept, noisy, left.sqrt(), (1 - left).sqrt())

    def _require(self, noisy: Tensor, step: Tensor, condition: tuple[Tensor, ...]) -> None:
        """Require inputs that the network can take, in one error for each."""
        if noisy.shape[1:] != self.shape:
            raise ConfigError(
                f"images must be [images, {', '.join(map(str, self.shape))}] for this "
                f"{self._kind}, not {list(noisy.shape)}"
            )
        if step.shape != noisy.shape[:1]:
            raise ConfigError(f"steps must be [{len(noisy)}], one an image, not {list(step.shape)}")
        wanted = self._wanted(len(noisy))
        given = [list(one.shape) for one in condition]
        fits = len(given) == len(wanted) and all(
            len(sizes) == len(asked)
            and all(isinstance(a, str) or a == s for a, s in zip(asked, sizes, strict=True))
            for asked, sizes in zip(wanted, given, strict=True)
        )
        if not fits:
            raise ConfigError(
                f"condition must be {_listed(wanted)} for this {self._kind}, not {_listed(given)}"
            )
        if self._told == "label" and condition:
            (labels,) = condition
            beyond = labels[(labels < 0) | (labels > self._most)].tolist()
            if labels.is_floating_point() or beyond:
                what = beyond[0] if beyond else str(labels.dtype).removeprefix("torch.")
                raise ConfigError(f"labels must be integers of 0 to {self._most}, not {what}")

    def _wanted(self, count: int) -> list[list[int | str]]:
        """Shapes of the conditions of so many images; of a named size, any does."""
        if self._told == "text":
            return [[count, "tokens", self._width]]
        return [] if self.classes is None else [[count]]


def _listed(shapes: Sequence[Sequence[int | str]]) -> str:
    return " and ".join(f"[{', '.join(map(str, sizes))}]" for sizes in shapes) or "nothing"


def _sides(size: Any, kind: str) -> tuple[int, int]:
    if size is None:
        raise ConfigError(f"{kind} must say the size of its images as sample_size, not None")
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _text_width(config: Any) -> int:
    asked = [f"{name}={value!r}" for name in _OTHER if (value := config.get(name)) is not None]
    if asked:
        raise ConfigError(
            f"UNet2DConditionModel must be told a text alone, not by {', '.join(asked)}, too"
        )
    if not isinstance(config.cross_attention_dim, int):
        raise ConfigError(
            "UNet2DConditionModel must read text of one width, not cross_attention_dim="
            f"{config.cross_attention_dim!r}"
        )
    return config.cross_attention_dim


def _classes(config: Any, kind: str) -> tuple[int | None, int]:
    """How many classes there are, and the highest label that may be given."""
    if kind == "DiTTransformer2DModel":
        count = int(config.num_embeds_ada_norm)
        return count, count  # it keeps an embedding of no class behind the others
    if config.class_embed_type is not None:
        raise ConfigError(
            f"{kind} must embed labels by a table, not by class_embed_type="
            f"{config.class_embed_type!r}"
        )
    return config.num_class_embeds, (config.num_class_embeds or 1) - 1


def _prediction(scheduler: Any) -> tuple[str, Tensor]:
    """What a network predicts, and the shares of the image's variance by step."""
    if scheduler is None:
        return "epsilon", torch.ones(1)
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in _NOISE:
        raise ConfigError(
            f"prediction_type must be one of {', '.join(_NOISE)}, which noise can be made of, not "
            f"{kind!r}"
        )
    return kind, scheduler.alphas_cumprod.clone()


def diffusers_model(path: str, *, pretrained: bool) -> Network:
    """Read what ``save_pretrained`` of diffusers wrote: a network, or a pipeline with its schedule.

    Parameters
    ----------
    path : str
        Folder of a network, with its ``config.json``, or of a pipeline, with a folder ``unet`` or
        ``transformer`` and, for sampling, ``scheduler``.
    pretrained : bool
        Read its weights, too.

    Raises
    ------
    ConfigError
        If diffusers is not installed, the folder holds no network that is adapted, or its files
        cannot be read.
    """
    subject = f"model 'diffusers:{path}'"
    diffusers = require("diffusers", extra="diffusion", purpose=subject)
    root = Path(path)
    places = [place for place in (root, root / "unet", root / "transformer") if _is_network(place)]
    if not places:
        raise ConfigError(
            f"{subject}: must be a folder with the config.json of a network, or with a folder "
            "unet or transformer that has one, not be without"
        )
    place = places[0]
    try:
        name = json.loads((place / "config.json").read_text())["_class_name"]
        if name not in _TOLD:
            raise ConfigError(f"{subject}: network must be one of {', '.join(_TOLD)}, not {name}")
        kind = getattr(diffusers, name)
        if pretrained:
            network = kind.from_pretrained(place, local_files_only=True, low_cpu_mem_usage=False)
        else:
            network = kind.from_config(kind.load_config(place, local_files_only=True))
        scheduler = _scheduler_in(diffusers, root)
    except ConfigError:
        raise
    except Exception as error:  # of diffusers, safetensors, json, ...
        raise ConfigError(f"{subject}: must be readable, but {reason(error)}") from error
    return Network(network, scheduler)


def _is_network(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _scheduler_in(diffusers: Any, root: Path) -> Any:
    """The scheduler of a pipeline; None where there is none."""
    file = root / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        return None
    about = json.loads(file.read_text())
    return getattr(diffusers, about["_class_name"]).from_config(about)
