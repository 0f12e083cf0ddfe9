"""Measure a model on a task, alone or beside the model it was made from.

====================  ====================================================  ==================
metric                meaning                                               needs
====================  ====================================================  ==================
top1                  share of inputs whose greatest logit is the label     Classification
nats_per_token        mean negative log-likelihood of the scored tokens     LanguageModelling
perplexity            its exponential                                       LanguageModelling
logit_kl              mean KL(reference || model) in nats, per input or     both, a reference
                      scored token; ``_median``, ``_p90``, ``_p99`` and
                      ``_max`` are its quantiles
logit_kl_floor        the same mean between two runs of the reference on    both, a reference
                      the first batch: less is noise
same_top1             share of inputs or scored tokens whose greatest       both, a reference
                      logit is the same
changed_top1          share of inputs where it is not                       Classification, a
                                                                            reference
perplexity_change     perplexity less the reference's                       LanguageModelling,
                                                                            a reference
perplexity_change_se  its standard error, paired, over rows of text (two    LanguageModelling,
                      at least)                                             a reference
embedding_cosine      mean cosine between the two models' vectors of one    Embedding, a
                      input                                                 reference
retrieval_agreement   share of the ``neighbours`` (1) nearest other inputs  Embedding, a
                      of an input that both models agree on                 reference
eps_mse               mean squared error of the predicted noise             Denoising
frechet               Fréchet distance of samples and real images, by a     Generation
                      judge's features
precision             share of samples that are like real images            Generation
recall                share of real images that are like samples            Generation
agreement             share of samples that the judge takes for the class   Generation, labels
                      that was asked for
frechet_to_reference  the same distance of samples of both models           Generation, a reference
same_class            share of noise from which both models draw what the   Generation, a reference
                      judge takes for the same class
sqnr_db               energy of the reference's images over that of their   Generation, a reference
                      difference from the model's, at most 200
psnr_db               the same of images that are white all over            Generation, a reference
ssim                  mean structural similarity of images from equal       Generation, a reference,
                      noise                                                 torchmetrics
feature_distance      mean squared distance of the judge's features at      Generation, a reference
                      unit length, of images from equal noise
====================  ====================================================  ==================
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rescomp import ActivationQuantizer
from signbook.data.carried import carries
from signbook.loading import check_activations, load_model
from signbook.meters import meter_for
from signbook.naming import resolve_data, resolve_model
from signbook.tasks import LanguageModelling, Task
from vq.calibration.batches import each, on_batch, shapes_of, to_device
from vq.container import open_container
from vq.container.rom import roms_of
from vq.errors import ConfigError
from vq.inference.device import choose_device
from vq.integer import IntegerModel, read_integer
from vq.integer.steps import StepModel, has_steps, read_steps
from vq.integer.tokens import TokenModel, has_tokens, read_tokens
from vq.layers import candidates, op_of
from vq.progress import bar

__all__ = [
    "SCHEMA",
    "Evaluation",
    "IntegerModule",
    "choose_device",
    "evaluate",
    "evaluate_named",
    "load_integer",
]

SCHEMA = "signbook.eval/1"


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model, and of its reference where there was one.

    ``protocol`` says of a text how it was cut and how many tokens were scored. ``samples`` has the
    first 16 images [H][W] that the "model" drew, and those of the "reference", from 0 to 255.
    ``drift`` says for both how far they have parted at each of the "steps" from equal noise: as
    "relative_error", the difference's root mean square over the reference's.
    """

    metrics: dict[str, float]
    reference: dict[str, float] | None = None
    protocol: dict[str, Any] | None = None
    samples: dict[str, list[Any]] | None = None
    drift: dict[str, list[float]] | None = None

    def document(self, *, with_reference: bool = False) -> dict[str, Any]:
        """The ``signbook.eval/1`` document, on demand with the reference's metrics and samples."""
        document: dict[str, Any] = {"schema": SCHEMA, "metrics": self.metrics}
        if with_reference and self.reference is not None:
            document["reference"] = self.reference
        if self.protocol is not None:
            document["protocol"] = self.protocol
        if self.samples is not None:
            kept = self.samples if with_reference else {"model": self.samples["model"]}
            document["samples"] = kept
        if with_reference and self.drift is not None:
            document["drift"] = self.drift
        return document


class IntegerModule(nn.Module):
    """The golden model as a torch module: real inputs to real logits, int8 in between.

    It computes with numpy on the CPU; logits return to the device of the inputs.
    """

    def __init__(self, model: IntegerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:  # [B, ...]
        codes = self.model.run(self.model.quantize(x.detach().cpu().float().numpy()))
        return torch.from_numpy(self.model.dequantize(codes)).to(x.device)


class StepModule(nn.Module):
    """The golden model of a diffusion network: predicts noise at the steps that it has scales for.

    Attributes
    ----------
    shape, classes
        As samplers ask for them (:class:`signbook.diffusion.sampler.Traits`).
    """

    def __init__(self, model: StepModel) -> None:
        super().__init__()
        self.model = model
        self.shape = model.graph.nodes[0].shape
        self.classes = model.graph.classes - 1 if model.graph.classes else None

    def forward(self, x: Tensor, step: Tensor, label: Tensor | None = None) -> Tensor:  # [B, ...]
        inputs = x.detach().cpu().float().numpy()
        told = None if label is None else label.detach().cpu().numpy()
        out = np.empty_like(inputs)
        times = step.detach().cpu().numpy()
        for time in np.unique(times):
            rows = times == time
            out[rows] = self.model.run(
                inputs[rows], int(time), None if told is None else told[rows]
            )
        return torch.from_numpy(out).to(x.device)


class TokenModule(nn.Module):
    """The golden model of a transformer: tokens, with padding behind them, or real images."""

    def __init__(self, model: TokenModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Tensor
    ) -> Tensor:  # [B, T] or [B, C, H, W]
        for name, tensor in others.items():
            if bool(tensor.any()):
                raise ConfigError(f"{name} must be left out, or all 0: its graph knows no other")
        values, lengths = input_ids.detach().cpu().numpy(), None
        if attention_mask is not None:
            mask = attention_mask.detach().cpu().bool()
            lengths = mask.sum(1).numpy()
            if not torch.equal(mask, torch.arange(mask.shape[1]) < mask.sum(1)[:, None]):
                raise ConfigError("attention_mask must be 1 and then 0 in every row")
        if input_ids.is_floating_point():
            values = self.model.quantize(values)
        outputs = self.model.dequantize(self.model.run(values, lengths=lengths))
        return torch.from_numpy(outputs).to(input_ids.device)


def load_integer(file: Path, rom: Path | None = None) -> IntegerModule | StepModule | TokenModule:
    """Read the integer graph of a container as a module.

    ``rom`` is the array file of a codebook that the container only names.

    Raises
    ------
    ContainerError
        If there is none or it is damaged.
    """
    with open_container(file, rom=roms_of(rom)) as container:
        if has_steps(container):
            return StepModule(read_steps(container))
        if has_tokens(container):
            return TokenModule(read_tokens(container))
        return IntegerModule(read_integer(container))


def evaluate_named(
    model: str,
    data: str,
    *,
    weights: Path | None = None,
    file: Path | None = None,
    reference: bool = False,
    integer: bool = False,
    activation_bits: int | None = None,
    packed: bool = False,
    activations: str | None = None,
    rom: Path | None = None,
    device: str = "auto",
) -> Evaluation:
    """Evaluate what the command line names.

    Without ``file``: the model with ``weights``, or with those that belong to its name. With it:
    the container's weights in the model's architecture, or its integer graph if ``integer``,
    compared with ``weights`` if given, and with those that belong to the name if ``reference``.
    With ``activation_bits``, the inputs of the model's linear layers are rounded, those of the file
    alone if there is one; never those of what it is compared with. If ``packed``, the container's
    layers run from their packed weights, with ``activations`` as :func:`vq.pack_` takes them.
    ``rom`` is the array file of a codebook that the container only names. Data that take a
    ``tokenizer`` and are not given one are read by the one that the container carries.

    Raises
    ------
    ConfigError
        If a name, a file or their combination cannot work.
    ContainerError
        If ``file`` is damaged or is of another architecture.
    """
    if reference and file is None:
        raise ConfigError("--reference must come with --file, the model that is compared with it")
    if integer and file is None:
        raise ConfigError("--integer must come with --file, the container that holds the graph")
    if integer and packed:
        raise ConfigError("--packed must come without --integer: a graph's layers are decoded")
    if integer and activation_bits is not None:
        raise ConfigError("--activation-bits must come without --integer: its activations are int8")
    if packed and activation_bits is not None:
        raise ConfigError(
            "--activation-bits must come without --packed: what packed layers read is rounded as "
            "--activations says"
        )
    check_activations(packed, activations)
    choose_device(device)
    own = {"tokenizer": str(file)} if file is not None and carries(file) else {}
    if integer and file is not None:
        subject: nn.Module = load_integer(file, rom)
    else:
        subject = load_model(model, weights, file, rom=rom, packed=packed, activations=activations)
        _round_activations(subject, activation_bits, file)
    if file is None or not (reference or weights is not None):
        return evaluate(subject, resolve_data(data, own), device=device)
    compared = resolve_model(model, weights)
    return evaluate(subject, resolve_data(data, own), reference=compared, device=device)


def _round_activations(model: nn.Module, bits: int | None, file: Path | None) -> None:
    if bits is None:
        return
    linear = [n for n, m in candidates(model) if op_of(m) in ("linear", "linear_t")]
    if file is not None:
        with open_container(file) as container:
            stored = {entry.geometry.name for entry in container.layers}
        linear = [name for name in linear if name in stored]
    if not linear:
        raise ConfigError("--activation-bits must come with linear layers to round, not none")
    ActivationQuantizer(model, linear, bits)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Task,
    *,
    reference: nn.Module | None = None,
    device: str | torch.device = "auto",
    neighbours: int = 1,
    progress: bool = True,
) -> Evaluation:
    """Measure ``model`` on ``task``, batch by batch; both models are moved to ``device``.

    Memory holds one batch and its outputs, one number per input or scored token, and for
    embeddings and samples one vector per input and model.

    Parameters
    ----------
    reference : module, optional
        What the model is compared with, most often the uncompressed one.
    device : str
        "auto" is CUDA where there is any, else the CPU.
    neighbours : int
        Nearest inputs that ``retrieval_agreement`` compares.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Raises
    ------
    ConfigError
        If there are no batches; if the data raise an error, a batch is not what the task says, the
        model cannot take it, or its outputs have another shape or are not finite: the message names
        the batch and its shapes; if a metric is not finite.
    """
    place = choose_device(device)
    models = [model] if reference is None else [model, reference]
    meter = meter_for(task, compare=reference is not None, neighbours=neighbours)
    total = _length(task.batches)
    with _evaluating(models, place), bar("evaluating", total, enabled=progress) as advance:
        for number, batch in enumerate(each(task.batches, "evaluation"), 1):
            with on_batch(number, batch, "evaluation"):
                try:
                    _require_tensors(batch)
                    meter.add(to_device(batch, place), models)
                except ConfigError as error:
                    where = f"evaluation batch {number}, {shapes_of(batch)}"
                    raise ConfigError(f"{where}: {error}") from error
            advance()
    if not meter.count:
        raise ConfigError("data must hold at least one thing to score, not none")
    metrics, protocol = meter.metrics(0), _protocol(task, meter.count)
    drawn = zip(("model", "reference"), map(meter.samples, range(len(models))), strict=False)
    samples = {name: images for name, images in drawn if images is not None} or None
    if reference is None:
        return Evaluation(_finite(metrics), None, protocol, samples)
    compared = _finite(metrics | meter.comparison())
    return Evaluation(compared, _finite(meter.metrics(1)), protocol, samples, meter.drift())


def _length(batches: Any) -> int | None:
    """How many batches there are, for the bar; a generator does not know."""
    try:
        return len(batches)
    except Exception:  # a loader is the user's code
        return None


def _require_tensors(item: Any) -> None:
    """Require that a batch holds nothing but tensors, in tuples, lists and mappings too."""
    if isinstance(item, Mapping | tuple | list):
        for part in item.values() if isinstance(item, Mapping) else item:
            _require_tensors(part)
    elif not isinstance(item, Tensor):
        raise ConfigError(f"a batch must hold tensors, not {type(item).__name__}")


def _protocol(task: Task, scored: int) -> dict[str, Any] | None:
    """What a perplexity is to be read with; None for other tasks."""
    if not isinstance(task, LanguageModelling):
        return None
    known: dict[str, Any] = {} if task.protocol is None else asdict(task.protocol)
    return known | {"scored_tokens": scored}


@contextmanager
def _evaluating(models: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Put models on the device and in evaluation mode; restore the mode of every module."""
    training = [m for model in models for m in model.to(device).modules() if m.training]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ConfigError(f"metric {name!r} must be finite, not {value}; look at the weights")
    return metrics
