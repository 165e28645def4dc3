"""A release trained on with new labels, compared with the old one, and published if it is no worse.

Both answer the same held-out products, old ones and new ones, as they would be served. The new
release is written beside its place, takes its name in one step when all gates are passed, and is
removed else. The old release is never touched.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.errors import SortimentError
from models.flagship import FlagshipConfig
from models.labels import LabelSpace
from models.loading import load_predictor
from models.release import Release, read_release
from models.release_store import move_directory
from models.taxonomy import Taxonomy, compile_masks
from training import metrics
from training.abstention import read_abstention
from training.ave_bert_refresh import RefreshedAveBert
from training.data import DataSet, LabelledProduct, count_rows
from training.dhpc_refresh import RefreshedDhpc
from training.flagship_refresh import RefreshedFlagship
from training.gates import Answers, GateResult, Gates, judge
from training.predictions import predict_products
from training.processes import Processes, one_process
from training.recipe import AveBertSettings, Recipe, SystemSettings
from training.refresh_data import RefreshData, write_refresh_data
from training.run import check_target, fit_system
from training.same_texts import text_keys
from training.successor import refuse_same
from training.system import Job, System

__all__ = ["RefreshRefused", "RefreshReport", "recipe_for", "refresh"]

# Old products to each new one: enough that a pass over both does not forget the old ones.
_REPLAY_SHARE = 4
_REPLAY_LEAST = 2000

# By architecture, which is also the kind of the recipe's system.
_SYSTEMS: Mapping[str, Callable[[Job, Release], System]] = {
    "ave_bert": RefreshedAveBert,
    "dhpc": RefreshedDhpc,
    "flagship": RefreshedFlagship,
}
_RECIPES = {"ave_bert": "refresh-ave-label-masking", "dhpc": "refresh-dhpc-amazon"}


class RefreshRefused(SortimentError):
    """The new release is worse than the gates allow; it was not published."""

    exit_code = 3

    def __init__(self, report: RefreshReport) -> None:
        failed = [str(each) for each in report.gates if not each.passed]
        super().__init__(
            f"not published, release {report.old} stays; worse than the gates allow:\n"
            + "\n".join(f"  - {line}" for line in failed)
        )
        self.report = report


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """What was trained and compared.

    Attributes:
        old, new: release ids. changed: ids that were added and gone, by kind.
        figures: by release, what ``gates`` were judged by, and the accuracy of the new products
            alone.
        published: where the new release is; None where it was refused.
    """

    old: str
    new: str
    data: RefreshData
    changed: Mapping[str, Mapping[str, int]]
    figures: Mapping[str, Mapping[str, float]]
    gates: tuple[GateResult, ...]
    published: Path | None

    def to_json(self) -> dict[str, Any]:
        """As ``orjson`` takes it."""
        return asdict(self) | {"published": None if self.published is None else str(self.published)}


def refresh(
    release_dir: Path,
    recipe: Recipe,
    new: Sequence[Path],
    *,
    gates: Gates | None = None,
    replay: int | None = None,
    hold: float = 0.2,
    compare_on: str = "test",
    say: Callable[[str], object] = print,
) -> RefreshReport:
    """Fine-tune a release on new labelled products and publish it at ``recipe.out``.

    Args:
        recipe: how to train; ``data`` holds the old products and the taxonomy as it is now,
            ``name`` and ``version`` are the new release's.
        new: files of labelled products.
        gates: None: the usual ones.
        replay: old training products that are trained on again; None: four to each new line, at
            least 2,000.
        hold: share of the new products that thresholds are set on, and as much to compare by.
        compare_on: split of ``data`` to compare by.

    Raises:
        RefreshRefused: the new release is worse than the gates allow.
        SortimentError: the release cannot be refreshed, the data cannot be used, or ``out`` is
            there already.
    """
    one_process("refresh", "its fine-tuning is short, start it without torchrun")
    if compare_on in ("train", "valid"):
        raise SortimentError(
            f"releases are compared by products unseen: {compare_on} is learned from"
        )
    check_target(recipe)
    old = read_release(release_dir)
    usual = recipe_for(old)
    if recipe.system.kind != old.architecture:
        raise SortimentError(
            f"release {old.id} is refreshed by a recipe of kind {old.architecture} ({usual}, or "
            f"one made from it), got one of kind {recipe.system.kind}"
        )
    make = _SYSTEMS[old.architecture]
    refuse_same(old, recipe.name, recipe.version)
    system = _promising(recipe.system, old)
    recipe = replace(recipe, system=system)
    # Without a category model nothing is assigned.
    target = 0.0 if isinstance(system, AveBertSettings) else system.target_accuracy
    data = DataSet(recipe.data)
    processes = Processes(recipe.device)
    recipe.out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="sortiment-refresh-") as room,
        # Beside ``out``: from there it takes its name in one step.
        tempfile.TemporaryDirectory(
            prefix=f".{recipe.out.name}.candidate-", dir=recipe.out.parent
        ) as beside,
    ):
        folder, candidate = Path(room), Path(beside) / "release"
        count = sum(map(count_rows, new))
        written = write_refresh_data(
            data,
            new,
            folder,
            replay=max(_REPLAY_SHARE * count, _REPLAY_LEAST) if replay is None else replay,
            hold=hold,
            compare_on=compare_on,
            seed=recipe.seed,
        )
        for line in written.lines():
            say(line)
        changed = _changed(old, data.taxonomy)
        for kind, counts in changed.items():
            if any(counts.values()):
                say(f"{kind}: {counts['added']:,} added, {counts['gone']:,} gone")
        if not written.test_old + written.test_new:
            raise SortimentError(
                f"{data.directory} has no products in {compare_on} whose category is a leaf of "
                "its taxonomy: nothing to compare by"
            )
        inside = replace(recipe, data=folder, out=candidate, limit=None)
        # Both releases answer all products after it: an interruption there is not to undo it.
        fitted = fit_system(inside, processes, say, make=lambda job: make(job, old), keep_end=True)
        fitted.system.publish(candidate, fitted.outcome.epochs)
        fresh = read_release(candidate)
        items = list(DataSet(folder).products("test"))
        allowed = _allowed(data.taxonomy, items)
        existing = frozenset(data.taxonomy.label_ids())
        before, now = (
            _answers(each, items, allowed, existing, processes.device) for each in (old, fresh)
        )
        results = judge(
            before,
            now,
            _departments(data.taxonomy, items),
            text_keys(item.product for item in items),
            target,
            gates or Gates(),
        )
        report = RefreshReport(
            old.id,
            fresh.id,
            written,
            changed,
            {
                old.id: _figures(before, written.test_new),
                fresh.id: _figures(now, written.test_new),
            },
            tuple(results),
            recipe.out if all(each.passed for each in results) else None,
        )
        if report.published is not None:
            move_directory(candidate, recipe.out)
    # Only now: a refresh that was interrupted goes on from it.
    fitted.checkpoint.unlink(missing_ok=True)
    if report.published is None:
        raise RefreshRefused(report)
    return report


def recipe_for(release: Release) -> str:
    """The recipe that such a release is usually refreshed by; a flagship's, by its members.

    Raises:
        SortimentError: its architecture cannot be refreshed. ModelError: it is no flagship's.
    """
    if release.architecture not in _SYSTEMS:
        raise SortimentError(
            f"release {release.id} is of architecture {release.architecture!r}; refresh knows "
            f"{', '.join(_SYSTEMS)}: train it anew with run"
        )
    if release.architecture == "flagship":
        members = FlagshipConfig.from_json(release.config).members
        return "refresh" if members == 1 else "refresh-wide"
    return _RECIPES[release.architecture]


def _promising(settings: SystemSettings, old: Release) -> SystemSettings:
    """What the old release's thresholds promise the new one's promise too."""
    if isinstance(settings, AveBertSettings):
        given = old.label_thresholds
        half = given is not None and bool((given == 0.5).all())
        return replace(settings, thresholds="half" if half else "tuned")
    promised = read_abstention(old)
    if promised is None:
        return settings
    return replace(
        settings,
        target_accuracy=promised.target,
        target_confidence=promised.confidence,
        abstention=promised.by,
    )


def _allowed(now: Taxonomy, items: Sequence[LabelledProduct]) -> list[frozenset[str]]:
    """Labels that the true category of each may have: no release can be right about others."""
    labels = LabelSpace(now.label_ids())
    categories = tuple(dict.fromkeys(item.category for item in items))
    masks = compile_masks(now, categories, labels)
    by_category = {
        category: frozenset(labels.ids[label] for label in masks.row(row))
        for row, category in enumerate(categories)
    }
    return [by_category[item.category] for item in items]


def _answers(
    release: Release,
    items: Sequence[LabelledProduct],
    allowed: Sequence[frozenset[str]],
    existing: frozenset[str],
    device: torch.device,
) -> Answers:
    """What a release answers; labels that left the taxonomy count neither as true nor as given."""
    found = predict_products(release, load_predictor(release, device, "auto"), items, device)
    true = [
        tuple(label for label in item.label_ids if label in labels)
        for item, labels in zip(items, allowed, strict=True)
    ]
    if found.categories is None:
        answers = found.labels_of_true or [()] * len(items)
        labels = [
            tuple(label for label in given if label in known)
            for given, known in zip(answers, allowed, strict=True)
        ]
        pairs = zip(labels, true, strict=True)
        exact = np.array([set(given) == set(wanted) for given, wanted in pairs], dtype=np.bool_)
        return Answers(exact, None, None, metrics.label_measures(true, labels).micro_f1)
    micro = None
    if found.labels is not None:
        labels = [tuple(label for label in each if label in existing) for each in found.labels]
        micro = metrics.label_measures(true, labels).micro_f1
    right = found.right([item.category for item in items])
    return Answers(right, found.scores, found.assigned, micro)


def _figures(answers: Answers, num_new: int) -> dict[str, float]:
    """The new products come last in the comparison's split."""
    name = answers.what.replace(" ", "_")
    found = {name: float(answers.right.mean())}
    if answers.scores is not None and answers.assigned is not None:
        coverage, assigned = metrics.accuracy_where(answers.right, answers.assigned)
        error = metrics.reliability(answers.scores, answers.right).calibration_error
        found |= {"coverage": coverage, "assigned_accuracy": assigned, "calibration_error": error}
    if num_new:
        found[f"{name}_of_new_products"] = float(answers.right[-num_new:].mean())
    if answers.attribute_f1 is not None:
        found["attribute_micro_f1"] = answers.attribute_f1
    return found


def _departments(taxonomy: Taxonomy, items: Sequence[LabelledProduct]) -> list[str]:
    """The department of each, by a name that no other department has."""
    names = {each: taxonomy.categories[each].name for each in taxonomy.departments}
    counts = Counter(names.values())
    shown = {
        each: name if counts[name] == 1 else f"{name} ({each})" for each, name in names.items()
    }
    return [shown[taxonomy.department_of(item.category)] for item in items]


def _changed(old: Release, now: Taxonomy) -> dict[str, dict[str, int]]:
    """Ids that were added and are gone, by kind; of what the release has a model for."""
    before = {}
    if old.categories is not None:
        before["categories"] = frozenset(old.categories.ids)
    if old.labels is not None:
        before["labels"] = frozenset(old.labels.ids)
    after = {"categories": frozenset(now.leaves), "labels": frozenset(now.label_ids())}
    return {
        kind: {"added": len(after[kind] - before[kind]), "gone": len(before[kind] - after[kind])}
        for kind in before
    }
