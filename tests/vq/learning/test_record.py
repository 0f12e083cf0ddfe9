"""What a run leaves behind: its record and its log."""

import json

import vq
from tests.vq.learning.models import plain
from tests.vq.models import batches
from vq.learning.objective import Distillation
from vq.learning.rates import Rates
from vq.learning.record import FinetuneResult, RunLog, entry


def test_the_record_is_plain_data_and_tells_the_settings(tmp_path):
    model, teacher = plain()
    result = vq.finetune_(
        model, batches(), epochs=2, teacher=teacher, distillation=Distillation(weight=0.5),
        checkpoint_dir=tmp_path / "run", checkpoint_steps=6, seed=1,
    )  # fmt: skip
    record = json.loads(json.dumps(result.to_json()))
    assert record["steps"] == 16
    assert record["settings"]["rates"]["signs"] == Rates().signs
    assert record["settings"]["freezing"]["vote"] == "majority"
    assert record["settings"]["loss"] == "torch.nn.functional.cross_entropy"
    lines = [json.loads(x) for x in (tmp_path / "run" / "run.jsonl").read_text().splitlines()]
    assert [(x["event"], x["step"]) for x in lines] == [
        ("checkpoint", 6), ("epoch", 8), ("checkpoint", 12), ("checkpoint", 16), ("epoch", 16),
    ]  # fmt: skip
    assert lines[-1]["signs"] == record["signs"][-1]
    assert lines[-1]["loss"] == record["losses"][-1]
    assert set(lines[0]["signs"]) >= {"flip_rate", "oscillating", "frozen", "changed"}


def test_the_log_goes_on_from_its_checkpoint(tmp_path):
    entries = [("checkpoint", 2), ("epoch", 3), ("checkpoint", 4), ("epoch", 4), ("checkpoint", 6)]
    log = RunLog(tmp_path, 0)
    for event, step in entries:
        log.write({"event": event, "step": step})
    with (tmp_path / "run.jsonl").open("a") as file:
        file.write('{"event": "epo')  # cut off
    for step, kept in ((6, 5), (4, 3), (0, 0)):
        RunLog(tmp_path, step)
        lines = (tmp_path / "run.jsonl").read_text().splitlines()
        assert [json.loads(x)["step"] for x in lines] == [at for _, at in entries[:kept]]


def test_what_other_rules_tell_has_a_place_of_its_own():
    signs = {"flipped_now": 0.1, "oscillating": 0.2, "frozen": 0.0, "changed": 0.3}
    told = {"signs": signs, "refinement": {"reassigned": 3}, "own": {"a": 1.0}}
    result = FinetuneResult(settings={"epochs": 2})
    assert "rules" not in result.to_json()
    result.add_epoch(1.5, told)
    result.add_epoch(1.25, {**told, "own": {"a": 2.0}})
    assert result.reassigned == 3 and result.signs[0].changed == 0.3
    assert result.rules == {"own": [{"a": 1.0}, {"a": 2.0}]}
    assert FinetuneResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    line = {"event": "epoch", "step": 4, "epoch": 1, "loss": 1.5, "reassigned": 3, "signs": signs}
    assert entry("epoch", 4, 1, 1.5, told) == {**line, "rules": {"own": {"a": 1.0}}}
    assert entry("epoch", 4, 1, 1.5, {}) == {**line, "reassigned": 0, "signs": None}
