"""``sortiment-train``: taxonomy, fit, evaluate.

Exit codes: 0 done, 1 an expected error (on stderr, without a traceback), 2 wrong usage, 130
interrupted. Commands are imported when they are called: ``--help`` does not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from models.errors import SortimentError
from models.threads import wait_passively

if TYPE_CHECKING:
    import torch

__all__ = ["cli", "main"]

# Heads on 2,600 products: after 168 steps their attribute F1 was 0.74, after 504 it was 0.77.
_FROZEN_STEPS = 500

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "evaluate": ("training.evaluate", "evaluate_command"),
    "taxonomy": ("training.taxonomy_cli", "taxonomy"),
}
_HELP = {
    "evaluate": "Measure a release on a data set.",
    "taxonomy": "Import, look at and check taxonomies.",
}


class _LazyGroup(click.Group):
    """A group whose heavier commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_COMMANDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, name = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's own, without importing what it lists."""
        rows = [(name, _HELP[name]) for name in _COMMANDS]
        rows += [(name, command.get_short_help_str()) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))


@click.group(cls=_LazyGroup, context_settings={"show_default": True})
def cli() -> None:
    """Train, measure and look at what Sortiment serves."""


@cli.command()
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with train and valid .jsonl(.gz) and taxonomy.json(.gz).",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the release; not there yet.",
)
@click.option(
    "--encoder-model",
    help="Hub id or directory of a Hugging Face encoder.  [default: the bundled MiniLM]",
)
@click.option(
    "--encoder",
    "gear",
    type=click.Choice(["frozen", "finetune"]),
    default="frozen",
    help="frozen: its features are computed once and kept, heads are trained. "
    "finetune: all of it is trained, for a GPU.",
)
@click.option("--limit", type=click.IntRange(1), help="Training products at most, at random.")
@click.option(
    "--epochs", type=click.IntRange(1), help="[default: 8 frozen (more on little data), 4 finetune]"
)
@click.option("--patience", type=click.IntRange(1), default=3, help="Epochs without progress.")
@click.option("--batch-size", type=click.IntRange(1), default=128)
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Of the heads.")
@click.option("--bag-lr", type=click.FloatRange(0, min_open=True), help="Of the hashed bag.")
@click.option("--encoder-lr", type=click.FloatRange(0, min_open=True), help="Of its last layer.")
@click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), default=0.2)
@click.option("--seed", type=click.IntRange(0), default=1)
@click.option("--name", default="flagship", help="Of the release.")
@click.option("--version", default="1", help="Of the release.")
@click.option("--max-tokens", type=click.IntRange(8), default=96)
@click.option("--layer-pooling", type=click.Choice(["concat", "mean"]), default="concat")
@click.option("--hash-buckets", type=click.IntRange(1, 2**31), default=2**18)
@click.option("--hash-dim", type=click.IntRange(1), default=128)
@click.option(
    "--target-accuracy",
    type=click.FloatRange(0, 1),
    default=0.9,
    help="Of assigned products: below, a product goes to review.",
)
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path.home() / ".cache" / "sortiment",
    show_default="~/.cache/sortiment",
    help="Features and interrupted runs.",
)
@click.option(
    "--resume/--fresh", default=True, help="Go on from an interrupted run of the same settings."
)
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
@click.option("--progress/--no-progress", default=None, help="[default: on a terminal]")
def fit(
    data: Path,
    out: Path,
    encoder_model: str | None,
    gear: str,
    limit: int | None,
    epochs: int | None,
    patience: int,
    batch_size: int,
    lr: float | None,
    bag_lr: float | None,
    encoder_lr: float | None,
    dropout: float,
    seed: int,
    name: str,
    version: str,
    max_tokens: int,
    layer_pooling: str,
    hash_buckets: int,
    hash_dim: int,
    target_accuracy: float,
    cache_dir: Path,
    resume: bool,
    device: str,
    progress: bool | None,
) -> None:
    """Train the flagship on a data set and write a release.

    A run that is interrupted (Ctrl-C) goes on where it stopped when the same command is given
    again, and ends with the same weights.
    """
    from models.hashing import HashingConfig
    from training.fit import FitConfig, bundled_encoder
    from training.fit import fit as run
    from training.learner import Rates
    from training.loop import LoopConfig

    given = {"heads": lr, "bag": bag_lr, "encoder": encoder_lr}
    report = run(
        FitConfig(
            data=data,
            out=out,
            encoder_model=encoder_model or bundled_encoder(),
            cache=cache_dir,
            gear="frozen" if gear == "frozen" else "finetune",
            name=name,
            version=version,
            limit=limit,
            max_tokens=max_tokens,
            layer_pooling="mean" if layer_pooling == "mean" else "concat",
            hashing=HashingConfig(buckets=hash_buckets),
            bag_dim=hash_dim,
            dropout=dropout,
            loop=LoopConfig(
                epochs=epochs or (8 if gear == "frozen" else 4),
                batch_size=batch_size,
                seed=seed,
                min_steps=_FROZEN_STEPS if epochs is None and gear == "frozen" else 0,
                patience=patience,
            ),
            rates=Rates(**{key: value for key, value in given.items() if value is not None}),
            target_accuracy=target_accuracy,
            device=_device(device),
            resume=resume,
            progress=sys.stderr.isatty() if progress is None else progress,
        ),
        say=click.echo,
    )
    for measure, value in report.metrics.items():
        click.echo(f"valid {measure}: {value:.4f}")
    click.echo(" ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.seconds.items()))
    click.echo(f"release {name}/{version}: {report.release}")


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise click.UsageError(f"--device {name}: {error}") from error
    return device


def main() -> None:
    """The console script."""
    wait_passively()
    try:
        code = cli(prog_name="sortiment-train", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; the same command goes on with what is kept", err=True)
        sys.exit(130)
    except SortimentError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(getattr(error, "exit_code", 1))
    # Outside its standalone mode click returns what ``ctx.exit`` was given.
    sys.exit(code if isinstance(code, int) else 0)
