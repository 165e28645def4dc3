"""``sortiment-train``: from a taxonomy and labelled products to releases, and what these are worth.

Exit codes: 0 done, 1 an expected error (on stderr, without a traceback), 2 wrong usage, 3 a refresh
that is not published, 130 interrupted. Commands are imported when they are called: ``--help`` does
not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping

import click

from models.errors import SortimentError
from models.threads import wait_passively

__all__ = ["cli", "main"]

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "compare": ("training.compare_cli", "compare_command"),
    "coverage": ("training.coverage_cli", "coverage_command"),
    "evaluate": ("training.evaluate", "evaluate_command"),
    "refresh": ("training.refresh_cli", "refresh_command"),
    "rethreshold": ("training.rethreshold", "rethreshold_command"),
    "taxonomy": ("training.taxonomy_cli", "taxonomy"),
    "upload": ("training.upload", "upload_command"),
}
_HELP = {
    "compare": "Train a table of rows on one data set, beside a paper's.",
    "coverage": "Measure what a release assigns and how much of it is right.",
    "evaluate": "Measure a release on a data set.",
    "refresh": "Train a release on with new labels; publish it if it is no worse.",
    "rethreshold": "Set the thresholds of a release's categories anew, with nothing trained.",
    "taxonomy": "Import, look at and check taxonomies.",
    "upload": "Copy a release to where workers fetch it from.",
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
@click.argument("recipe")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
def run(recipe: str, settings: tuple[str, ...]) -> None:
    """Train what RECIPE describes and write a release.

    RECIPE is a name that `sortiment-train recipes` lists, or a YAML file. KEY=VALUE sets what it
    leaves open or changes it; keys within a mapping are joined by dots:

        sortiment-train run flagship data=DIR out=releases/shop/1 train.epochs=4

    data is a folder with train and valid as .jsonl, .jsonl.gz or .parquet and taxonomy.json(.gz);
    out is the release's folder, not there yet. A run that is interrupted (Ctrl-C) goes on where it
    stopped when the same command is given again, and ends with the same weights. Several GPUs or
    machines: torchrun --nproc-per-node 8 --no-python sortiment-train run ...
    """
    from dataclasses import replace

    from training.recipe_files import load_recipe

    loaded = load_recipe(recipe, settings)
    from training.run import run as run_recipe

    if loaded.progress is None:
        loaded = replace(loaded, progress=sys.stderr.isatty())
    report = run_recipe(loaded, say=click.echo)
    if report is None:
        return
    for measure, value in report.metrics.items():
        click.echo(f"valid {measure}: {value:.4f}")
    click.echo(" ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.seconds.items()))
    click.echo(f"release {loaded.name}/{loaded.version}: {report.release}")


@cli.command()
def recipes() -> None:
    """List the recipes that come with the package."""
    from training.recipe_files import packaged_recipes

    found = packaged_recipes()
    width = max(map(len, found))
    for name, about in found.items():
        click.echo(f"{name:{width}}  {about}")


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
    except OSError as error:
        # A full disk, a file that may not be read: it names itself.
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    # Outside its standalone mode click returns what ``ctx.exit`` was given.
    sys.exit(code if isinstance(code, int) else 0)
