from __future__ import annotations

import numpy as np
import torch

from models.heads import CascadeHead
from training.calibrate import attribute_thresholds, fit_temperatures


def test_temperatures_find_what_the_logits_were_scaled_by() -> None:
    torch.manual_seed(0)
    head = CascadeHead(1, [0, 0, 0, 1, 1])
    department, leaf = torch.randn(4000, 2), torch.randn(4000, 5)
    scores = head.log_scores_from(department, leaf, torch.ones(2)).exp()
    true = torch.multinomial(scores, 1)[:, 0]
    found = fit_temperatures(head, 3 * department, 0.5 * leaf, true)
    np.testing.assert_allclose(found, [3, 0.5], rtol=0.15)


def test_no_valid_products_no_temperatures() -> None:
    head = CascadeHead(1, [0])
    found = fit_temperatures(head, torch.empty(0, 1), torch.empty(0, 1), torch.empty(0).long())
    assert found.tolist() == [1, 1]


def test_attribute_thresholds_pooled_and_own() -> None:
    random = np.random.default_rng(0)
    rows = np.repeat([0, 1], [400, 40])
    positive = random.random(440) < 0.5
    positive[400:] = [True] * 5 + [False] * 35
    # Label 0 tells its positives apart at 0.3, label 1 (too few positives) at 0.8.
    scores = np.where(rows == 0, np.where(positive, 0.35, 0.25), np.where(positive, 0.85, 0.75))
    counts = np.bincount(rows[positive], minlength=3)
    found = attribute_thresholds(scores.astype(np.float32), rows, positive, counts)
    assert 0.25 < found[0] <= 0.35
    assert found[1] == found[2]


def test_no_positives_half() -> None:
    found = attribute_thresholds(
        np.empty(0, dtype=np.float32),
        np.empty(0, dtype=np.int64),
        np.empty(0, dtype=np.bool_),
        np.zeros(3, dtype=np.int64),
    )
    assert found.tolist() == [0.5, 0.5, 0.5]
