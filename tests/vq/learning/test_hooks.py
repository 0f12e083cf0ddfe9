"""Rules in other people's trainers: transformers' and Lightning's, on a CPU."""

import importlib
import warnings

import pytest
import torch
from torch import nn

import vq
from tests.vq.learning.rules.own import Gaining, Shrinking
from tests.vq.models import batches
from vq import SSVQ, VQ, Recipe
from vq.errors import ConfigError, ResumeError
from vq.formats.model import compressed_layers
from vq.learning import hooks
from vq.learning.rates import Rates, parameter_groups
from vq.learning.rules.clamping import Clamping
from vq.learning.rules.driver import Rules
from vq.learning.rules.refinement import Refinement
from vq.learning.rules.signs import Freezing

SETTINGS = [
    Clamping(),
    Freezing(interval_steps=2, momentum=0.3, threshold_start=0.02, threshold_end=0.001),
    Refinement(interval_steps=4, margin=0),
    Shrinking(0.05),
    Gaining(1e-2),
]
EXAMPLES = [(x[i], y[i]) for x, y in batches() for i in range(len(x))]
STEPS = 16  # two epochs of 8 batches


class Small(nn.Module):
    """Takes and gives what both trainers want."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, 64)
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 5)

    def forward(self, x, labels):
        logits = self.head(torch.relu(self.norm(self.fc(x))))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def small():
    torch.manual_seed(0)
    model = Small()
    vq.compress_(model, Recipe({"fc": SSVQ(d=8, k=8), "head": VQ(d=5, k=16)}))
    return model


def sgd(model):
    return torch.optim.SGD(parameter_groups(model, Rates(signs=20.0, codebooks=0.5, rest=0.5)))


@pytest.fixture(scope="module")
def expected():
    """The same steps in a loop of our own."""
    torch.set_num_threads(1)
    model = small()
    rules = Rules(model, SETTINGS, STEPS)
    optimizer = sgd(model)
    for step in range(STEPS):
        if step % 8 == 0:
            rules.start_epoch()
        x, y = batches()[step % 8]
        model(x, y)["loss"].backward()
        rules.before_step()
        optimizer.step()
        rules.after_step()
        optimizer.zero_grad()
    return model, rules.telemetry()


def assert_as_expected(expected, model, rules):
    wanted, told = expected
    for name, value in wanted.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    found = rules.telemetry()
    for signs in (found["signs"], told["signs"]):
        signs.pop("flip_rate", None)  # trainers that resume begin an epoch where they please
    assert found == told
    assert told["refinement"]["reassigned"] > 0
    assert told["signs"]["changed"] > told["signs"]["frozen"] > 0
    assert not any(layer.module._forward_hooks for layer in compressed_layers(model))


class TestTransformers:
    @pytest.fixture
    def run(self, tmp_path):
        transformers = pytest.importorskip("transformers")
        pytest.importorskip("accelerate", reason="transformers' Trainer runs on it")

        def run(model, *, resume=None, **more):
            callback = hooks.transformers_callback(*SETTINGS)
            arguments = transformers.TrainingArguments(
                output_dir=str(tmp_path), num_train_epochs=2, per_device_train_batch_size=32,
                max_grad_norm=0, save_steps=5, report_to=[], use_cpu=True, disable_tqdm=True,
                dataloader_pin_memory=False, logging_strategy="no", **more,
            )  # fmt: skip
            optimizer = sgd(model)
            trainer = transformers.Trainer(
                model, arguments, callbacks=[callback],
                train_dataset=[{"x": x, "labels": y} for x, y in EXAMPLES],
                optimizers=(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)),
            )  # fmt: skip
            # In the order of the batches above.
            trainer._get_train_sampler = lambda *a: torch.utils.data.SequentialSampler(EXAMPLES)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trainer.train(resume_from_checkpoint=resume)
            return callback.rules

        return run

    def test_training_is_that_of_ones_own_loop(self, run, expected):
        model = small()
        assert_as_expected(expected, model, run(model))

    def test_it_resumes_with_the_state_of_the_rules(self, run, expected, tmp_path):
        run(small())
        model = small()
        checkpoint = tmp_path / "checkpoint-10"
        rules = run(model, resume=str(checkpoint))
        assert_as_expected(expected, model, rules)
        (checkpoint / "rules.pt").unlink()
        with pytest.raises(ResumeError, match="the state of the rules must be in the checkpoint"):
            run(small(), resume=str(checkpoint))


class TestLightning:
    @pytest.fixture
    def run(self, tmp_path):
        pytest.importorskip("lightning", reason="extra lightning is not installed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lightning = importlib.import_module("lightning.pytorch")

        class Module(lightning.LightningModule):
            def __init__(self, model):
                super().__init__()
                self.model = model

            def training_step(self, batch, at):
                return self.model(*batch)["loss"]

            def configure_optimizers(self):
                return sgd(self.model)

        def run(model, *, resume=None, epochs=2, **more):
            callback = hooks.lightning_callback(*SETTINGS)
            saver = lightning.callbacks.ModelCheckpoint(
                tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trainer = lightning.Trainer(
                    max_epochs=epochs, callbacks=[callback, saver], accelerator="cpu",
                    logger=False, enable_progress_bar=False, enable_model_summary=False,
                    default_root_dir=tmp_path, **more,
                )  # fmt: skip
                loader = torch.utils.data.DataLoader(EXAMPLES, batch_size=32)
                trainer.fit(Module(model), loader, ckpt_path=resume)
            return callback.rules, trainer

        return run

    def test_training_is_that_of_ones_own_loop(self, run, expected):
        model = small()
        rules, trainer = run(model)
        assert_as_expected(expected, model, rules)
        assert float(trainer.callback_metrics["gain/0"]) == pytest.approx(
            rules.telemetry()["gain"]["0"]
        )

    def test_it_resumes_with_the_state_of_the_rules(self, run, expected, tmp_path):
        run(small())
        model = small()
        rules, _ = run(model, resume=tmp_path / "step=8.ckpt")
        assert_as_expected(expected, model, rules)

    def test_batches_that_add_up_make_one_step(self, run):
        assert run(small(), accumulate_grad_batches=4)[0].state_dict()["step"] == STEPS // 4

    def test_a_checkpoint_before_any_training_holds_what_was_loaded(self, run):
        callback = hooks.lightning_callback(*SETTINGS)
        assert callback.state_dict() == {}
        callback.load_state_dict({"step": 3})
        assert callback.state_dict() == {"step": 3}

    def test_a_run_without_an_end_is_refused(self, run):
        with pytest.raises(ConfigError, match="total_steps must be positive and finite, not inf"):
            run(small(), epochs=-1)


@pytest.mark.parametrize(
    ("make", "module", "extra"),
    [
        (hooks.transformers_callback, "transformers", "lm"),
        (hooks.lightning_callback, "lightning.pytorch", "lightning"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, make, module, extra):
    def missing(name):
        package = name.partition(".")[0]
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=rf"must be installed, .* 'signbook\[{extra}\]'"):
        make()
