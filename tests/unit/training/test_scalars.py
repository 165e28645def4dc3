from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.scalars import Scalars


def test_an_epoch_that_is_measured_again_has_its_measures_once(tmp_path: Path) -> None:
    """A checkpoint of its last step was written before it was measured."""
    with Scalars(tmp_path, "run") as scalars:
        scalars.begin(0)
        for step in range(1, 51):
            scalars.step(step, loss=1.0, rate=0.1)
        scalars.epoch(50, {"quality": 0.5})
    with Scalars(tmp_path, "run") as scalars:
        scalars.begin(50, measured=False)
        scalars.epoch(50, {"quality": 0.5})
    written = EventAccumulator(str(tmp_path / "run"))
    written.Reload()
    assert [event.step for event in written.Scalars("valid/quality")] == [50]
    assert [event.step for event in written.Scalars("train/loss")] == [10, 20, 30, 40]


def test_what_a_killed_run_wrote_after_its_checkpoint_does_not_count(tmp_path: Path) -> None:
    for begun, loss in ((0, 1.0), (25, 2.0)):
        with Scalars(tmp_path, "run") as scalars:
            scalars.begin(begun)
            for step in range(begun + 1, 51):
                scalars.step(step, loss=loss, rate=0.1)
            scalars.epoch(50, {"loss": loss, "quality": 0.5})
    written = EventAccumulator(str(tmp_path / "run"))
    written.Reload()
    found = [(event.step, event.value) for event in written.Scalars("train/loss")]
    assert found == [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0), (50, 2.0)]
    assert [event.step for event in written.Scalars("valid/quality")] == [50]
    assert [event.value for event in written.Scalars("train/epoch_loss")] == [2.0]
