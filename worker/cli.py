"""``sortiment-worker``: run, announce, retract, topics; others in files of their own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar, Final, TypeVar, get_args

import click

from models.threads import wait_passively
from worker.announcement import Role
from worker.errors import ConfigError, SortimentError
from worker.settings import Settings, flag
from worker.settings_loading import load_settings

__all__ = ["main"]

F = TypeVar("F", bound=Callable[..., Any])

_SHARES: Final[dict[Role, float]] = {"active": 1.0, "canary": 0.05, "shadow": 0.1}


def _settings_flags(command: F) -> F:
    """A flag for every setting but secrets; what is given is checked by ``load_settings``."""
    for name, field in reversed(Settings.model_fields.items()):
        option = flag(name)
        if option is None:
            continue
        text = (field.description or "").replace("`", "'")
        if field.annotation is bool:
            both = f"{option}/--no-{option.removeprefix('--')}"
            command = click.option(both, name, default=None, help=text)(command)
        else:
            command = click.option(option, name, metavar="VALUE", help=text)(command)
    return command


class _Commands(click.Group):
    """Commands of their own files, imported when one is named."""

    FILES: ClassVar = {
        "produce": "worker.produce",
        "backfill": "worker.backfill",
        "replay-dead-letters": "worker.replay_dead_letters",
        "snapshot-corrections": "worker.snapshot_corrections",
        "watch": "worker.watch",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All, those of other files last."""
        return [*super().list_commands(ctx), *self.FILES]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One; None where there is none of this name."""
        if cmd_name in self.FILES:
            file = import_module(self.FILES[cmd_name])
            command: click.Command = getattr(file, cmd_name.replace("-", "_"))
            return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sortiment")
def cli() -> None:
    """Categorizes a marketplace's catalog as it streams through Kafka.

    Settings come from flags, the environment and a file .env; see docs/configuration.md.
    """


@cli.command()
@_settings_flags
def run(**flags: Any) -> None:
    """Run a worker until SIGTERM or Ctrl-C."""
    settings = load_settings(flags)
    # Torch and Faust take seconds to import: not for a wrong setting or --help.
    from worker.app import run as run_worker

    sys.exit(run_worker(settings))


@cli.command()
@click.argument("address")
@click.option(
    "--role",
    type=click.Choice(get_args(Role)),
    default="active",
    show_default=True,
    help="active: answers. canary: answers a share of the products, and is given up when it fails "
    "or abstains too often. shadow: scores a share of them again, to be compared.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    help="Of the products, by a hash of their keys; for a canary (0.05) or a shadow (0.1).",
)
@_settings_flags
def announce(address: str, role: Role, share: float | None, **flags: Any) -> None:
    """Verify the release at ADDRESS and announce it to the workers.

    Its digests are checked, its models loaded and its self-check examples run first. Workers load
    it beside what they serve, and swap between two batches.
    """
    if role == "active" and share is not None:
        raise click.UsageError("--share goes with --role canary or shadow: the active answers all")
    if role == "canary" and share == 1:
        raise click.UsageError(
            "--share 1 leaves a canary nothing to be compared with: announce it as active"
        )
    settings = load_settings(flags)
    from worker.announce import publish, verify
    from worker.components import inference_config

    release = verify(address, inference_config(settings))
    click.echo(f"verified {release.id} at {address}: digests, models and self-check are right")
    announcement = asyncio.run(
        publish(
            release,
            address,
            settings.kafka(),
            settings.topics(),
            role=role,
            share=share or _SHARES[role],
        )
    )
    what = role if role == "active" else f"{role} of a share of {announcement.share:g}"
    click.echo(
        f"announced {announcement.release} at {announcement.address} as {what} on topic "
        f"{settings.control_topic} at {settings.bootstrap_servers} "
        f"(manifest SHA-256 {announcement.manifest_sha256})"
    )


@cli.command()
@click.argument("role", type=click.Choice(["canary", "shadow"]))
@_settings_flags
def retract(role: Role, **flags: Any) -> None:
    """End what is announced as canary or shadow."""
    settings = load_settings(flags)
    from worker.announce import retract as take_back

    asyncio.run(take_back(role, settings.kafka(), settings.topics()))
    click.echo(f"no {role} any more, on topic {settings.control_topic}")


@cli.command()
@click.argument("action", type=click.Choice(["create", "check"]))
@_settings_flags
def topics(action: str, **flags: Any) -> None:
    """Create the topics that are missing, or only check what is there."""
    settings = load_settings({**flags, "create_topics": None if action == "create" else False})
    from worker.topics import ensure_topics

    facts = asyncio.run(ensure_topics(settings.kafka(), settings.topics()))
    for name, count in facts.partitions.items():
        state = "created" if name in facts.created else "there"
        click.echo(f"{name}: {count} partition{'s' if count != 1 else ''}, {state}")
    for difference in facts.differences:
        click.echo(f"note: {difference}")


def main() -> None:
    """Entry point. Exit code: 0 done, 1 failed, 2 wrong settings."""
    wait_passively()
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except ConfigError as error:
        click.echo(f"sortiment-worker: {error}", err=True)
        sys.exit(error.exit_code)
    except SortimentError as error:
        click.echo(f"sortiment-worker: {type(error).__name__}: {error}", err=True)
        sys.exit(1)
