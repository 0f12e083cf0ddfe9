"""Peak memory over the model while MiniLM is quantised, beside what it cannot do without.

That is, of float32: the weights of two blocks, H and D of the widest layer, and the hidden states
of all calibration tokens in two models. The rest of a peak is the solver's: the factor of H in
float64 and then float32 takes three times the bytes of H; or it is one batch inside a block.
Layers in codewords hold latents of four bytes a weight beside both weights until their block is
done, and int32 indices from then on.

Scalars have 3 bits in groups of 128, SSVQ has d=8, k=256, a scale per output and one sweep.

``peak_mb`` counts tensors (``live_tensors.py``): exact, and blind to what an allocator or a
library adds.
"""

import copy
import itertools
from functools import partial

import torch
from harness import Bench
from live_tensors import LiveTensors
from subjects import Subject, sentences
from torch import nn

import vq
from rescomp import GPTAQR, GPTQ, QEP, Clip, Fitting, Settings, quantize_
from rescomp.methods import Method
from vq.formats.format import Format

SCALARS, CODEBOOKS = vq.Int3(group=128), vq.SSVQ(d=8, k=256, scale="output")
ARMS: dict[str, tuple[Method, Format]] = {
    "gptq": (GPTQ(), SCALARS),
    "gptaq-r": (GPTAQR(), SCALARS),
    "qep-ssvq": (QEP(), CODEBOOKS),
}
TOKENS = (16_384, 65_536)
FIRST_BLOCK, HIDDEN, WIDEST = "bert.encoder.layer.0", 384, 1536
FLOAT, MEGA = 4, 1e6


def peak(subject: Subject, method: Method, layers: Format, tokens: int) -> dict[str, float]:
    """Peak and bound of one run, in MB."""
    model = copy.deepcopy(subject.model)
    data: list[dict[str, torch.Tensor]] = []
    for seed in itertools.count():
        if sum(batch["input_ids"].numel() for batch in data) >= tokens:
            break
        data += subject.calibration(seed)
    count = sum(batch["input_ids"].numel() for batch in data)
    block = model.get_submodule(FIRST_BLOCK)
    weights = sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Linear))
    bound = FLOAT * (2 * weights + 2 * WIDEST**2 + 2 * count * HIDDEN)
    given = [tensor for batch in data for tensor in batch.values()]
    recipe = vq.Recipe({subject.layers: layers})
    settings, fitting = Settings(clip=Clip(), measure=False), Fitting(sweeps=1)
    with LiveTensors([*model.parameters(), *model.buffers()], given) as live:
        quantize_(model, data, recipe, method, settings=settings, fitting=fitting)
    return {"peak_mb": live.peak / MEGA, "bound_mb": bound / MEGA, "ratio": live.peak / bound}


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("calibration_memory", __doc__, seeds=1)
    torch.set_num_threads(1)
    subject = sentences()
    for tokens in TOKENS[:1] if bench.quick else TOKENS:
        for arm in ARMS:
            run = partial(peak, subject, *ARMS[arm], tokens)
            bench.measure(f"minilm, {tokens} tokens", arm, 0, run)
    bench.finish()


if __name__ == "__main__":
    main()
