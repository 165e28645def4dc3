"""Two processes under torchrun, on the CPU: the same run as one process with the doubled batch.

Without dropout, whose numbers each process draws for itself.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.errors import SortimentError
from models.release import read_release
from tests.tiny_encoder import save_tiny_bert
from tests.tiny_shop import write_shop
from training.processes import Processes


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("processes")
    # A step's products without attributes lie unevenly between the processes.
    unlabelled = [
        {
            "product_id": f"plain-{number}",
            "title": ["dress", "shoe", "lamp"][number % 3],
            "category": ["wear/dress", "wear/shoe", "home/lamp"][number % 3],
            "attributes": [],
        }
        for number in range(40)
    ]
    data = write_shop(folder / "data", extra=unlabelled)
    encoder = save_tiny_bert(folder / "encoder")
    config = json.loads((encoder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (encoder / "config.json").write_text(json.dumps(config))
    return [
        f"data={data}",
        f"system.encoder={encoder}",
        "system.gear=finetune",
        "system.max_tokens=24",
        "system.hash_buckets=512",
        "system.bag_dim=8",
        "system.dropout=0",
        "train.min_steps=0",
        "train.epochs=3",
        "train.patience=null",
        "device=cpu",
        "progress=true",
    ]


def command(processes: int, arguments: list[str], recipe: str = "flagship") -> list[str]:
    program = str(Path(sys.executable).with_name("sortiment-train"))
    run = [program, "run", recipe, *arguments]
    if processes == 1:
        return run
    launcher = [sys.executable, "-m", "torch.distributed.run", "--no-python"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    return [*launcher, "--nproc-per-node", str(processes), *run]


def environment(folder: Path) -> dict[str, str]:
    # torchrun leaves a folder behind.
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "TMPDIR": str(folder),
    }


def losses(printed: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"epoch \d+: loss ([0-9.]+)", printed)]


def test_two_processes_are_one_with_the_doubled_batch(given: list[str], tmp_path: Path) -> None:
    curves = []
    for processes, batch_size in ((1, 16), (2, 8)):
        folder = tmp_path / str(processes)
        arguments = [*given, f"out={folder / 'release'}", f"cache={folder / 'cache'}"]
        arguments += [f"train.batch_size={batch_size}", "train.accumulate=1"]
        done = subprocess.run(
            command(processes, arguments),
            capture_output=True,
            text=True,
            env=environment(tmp_path),
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("training products") == 1
        assert done.stdout.count("release flagship/1") == 1
        curves.append(losses(done.stderr))
        assert not list(folder.rglob("checkpoint*"))
    assert len(curves[0]) == 3
    assert curves[1] == pytest.approx(curves[0], abs=0.0005)
    one, two = (read_release(tmp_path / name / "release").weights() for name in ("1", "2"))
    for name in ("category.leaf.weight", "mixer.bag.weight"):
        apart = (one[name] - two[name]).norm() / one[name].norm()
        assert apart < 0.01, name


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        (
            "dhpc-amazon",
            # Batch norm has statistics of each process's own; equation 8 draws other numbers.
            [
                "system.head_layers=1",
                "system.leaf.negatives=0",
                "changes.label_names=0",
                "system.department.per_leaf=null",
            ],
        ),
        ("ave-label-masking", ["system.classifiers=leaf", "system.cls_layers=2"]),
        ("ave-label-masking", ["system.masking=false", "system.cls_layers=2"]),
    ],
    ids=["dhpc", "ave by leaf", "ave without masking"],
)
def test_classifiers_that_take_turns_are_averaged_too(
    given: list[str], tmp_path: Path, recipe: str, settings: list[str]
) -> None:
    curves, weights = [], []
    arguments = [each for each in given if "hash_buckets" not in each and "bag_dim" not in each]
    arguments += settings
    for processes, batch_size in ((1, 16), (2, 8)):
        folder = tmp_path / str(processes)
        done = subprocess.run(
            command(
                processes,
                [
                    *arguments,
                    f"out={folder / 'release'}",
                    f"cache={folder / 'cache'}",
                    f"train.batch_size={batch_size}",
                    "train.epochs=2",
                ],
                recipe,
            ),
            capture_output=True,
            text=True,
            env=environment(tmp_path),
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        curves.append(losses(done.stderr))
        weights.append(read_release(folder / "release").weights())
    assert curves[1] == pytest.approx(curves[0], abs=0.0005)
    one, two = weights
    of_heads = [name for name in one if name.startswith(("attribute.w", "heads."))]
    assert of_heads
    for name in of_heads:
        if name.endswith("weight"):
            assert (one[name] - two[name]).norm() / one[name].norm() < 0.01, name


def test_a_run_of_two_processes_stops_together_and_goes_on(
    given: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "release"
    arguments = [*given, f"out={out}", f"cache={tmp_path / 'cache'}", "train.batch_size=8"]
    arguments += ["train.checkpoint_s=-1", "train.epochs=12"]
    child = subprocess.Popen(
        command(2, arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(tmp_path),
    )
    assert child.stdout is not None
    for line in child.stdout:
        if b"epoch 1: loss" in line:
            child.send_signal(signal.SIGTERM)
            break
    child.communicate(timeout=120)
    assert child.returncode != 0
    assert not out.exists()
    assert len(list(tmp_path.rglob("checkpoint.pt"))) == 1
    done = subprocess.run(
        command(2, [each for each in arguments if "checkpoint_s" not in each]),
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("going on from") == 1
    assert read_release(out).metrics["epochs"] == 12


def test_a_device_of_its_own_is_for_one_process() -> None:
    with pytest.raises(SortimentError, match="device=moon"):
        Processes("moon")
    assert Processes("cpu").device == torch.device("cpu")
