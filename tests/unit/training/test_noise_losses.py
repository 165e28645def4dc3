from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from training import noise_losses
from training.noise_losses import classifier_loss, drawn_negatives
from training.recipe import Strategy

PRODUCTS, WIDTH, CLASSES = 5, 4, 7


@pytest.fixture
def last() -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(WIDTH, CLASSES)


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(PRODUCTS, WIDTH, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def classes() -> torch.Tensor:
    return torch.tensor([0, 6, 3, 3, 1])


def directly(
    logits: torch.Tensor,
    classes: torch.Tensor,
    strategy: Strategy,
    beta: float,
    drawn: np.ndarray | None,
) -> torch.Tensor:
    """Equations 6 to 10, a label at a time."""
    total = logits.new_zeros(())
    for product, own in enumerate(classes.tolist()):
        for k in range(CLASSES):
            q = torch.sigmoid(logits[product, k] / strategy.temperature)
            p = (1 - strategy.smoothing) * float(k == own) + strategy.smoothing / CLASSES
            supervised = p * torch.log(q) + (1 - p) * torch.log(1 - q)
            if drawn is not None and k != own:
                factor = (CLASSES - 1) / (drawn.shape[1] / (CLASSES - 1) * CLASSES)
                supervised = supervised * (factor if k in drawn[product] else 0.0)
            total = total - beta * supervised - (1 - beta) * q * torch.log(q)
    return total / len(classes)


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(),
        Strategy(bootstrap=0.9),
        Strategy(negatives=0.7),
        Strategy(negatives=0.1),
        Strategy(temperature=0.7),
        Strategy(smoothing=0.1),
        Strategy(bootstrap=0.6, negatives=0.6, temperature=1.2),
    ],
    ids=["equation-5", "6", "8", "8-few", "10", "9", "8-and-10"],
)
def test_the_loss_is_the_papers_and_so_is_its_gradient(
    last: nn.Linear,
    hidden: torch.Tensor,
    classes: torch.Tensor,
    strategy: Strategy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = drawn_negatives(classes, CLASSES, strategy.negatives or 1.0)
    monkeypatch.setattr(noise_losses, "drawn_negatives", lambda *_: drawn)
    of_all = None if strategy.negatives == 0 else drawn.numpy()
    hidden.requires_grad_()
    found = classifier_loss(last, hidden, classes, strategy, 0)
    wanted = directly(last(hidden), classes, strategy, strategy.bootstrap, of_all)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    inputs = [hidden, last.weight, last.bias]
    # The bootstrap term's gradient runs through q.
    for one, other in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(wanted, inputs), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_negatives_of_few_classes_weigh_what_all_of_them_would(
    hidden: torch.Tensor,
) -> None:
    two = nn.Linear(WIDTH, 2)
    classes = torch.tensor([0, 1, 0, 0, 1])
    found = classifier_loss(two, hidden, classes, Strategy(negatives=0.1), 0)
    logits = two(hidden)
    own, other = (logits.gather(1, each[:, None]) for each in (classes, 1 - classes))
    # The only negative is drawn whatever sigma says; equation 8 leaves N_neg / N = 1 / 2 of it.
    wanted = functional.softplus(-own) + functional.softplus(other) / 2
    torch.testing.assert_close(found, wanted.mean())


def test_bootstrap_waits_for_its_step(
    last: nn.Linear, hidden: torch.Tensor, classes: torch.Tensor
) -> None:
    late = Strategy(bootstrap=0.8, bootstrap_from=1000)
    before, after = (classifier_loss(last, hidden, classes, late, step) for step in (999, 1000))
    torch.testing.assert_close(before, classifier_loss(last, hidden, classes, Strategy(), 0))
    at_once = classifier_loss(last, hidden, classes, Strategy(bootstrap=0.8), 0)
    torch.testing.assert_close(after, at_once)
    assert not torch.isclose(before, after)


@pytest.mark.parametrize(("share", "count"), [(0.1, 1), (0.5, 3), (0.7, 5), (1.0, 6)])
def test_negatives_are_drawn_without_replacement(share: float, count: int) -> None:
    torch.manual_seed(5)
    classes = torch.arange(CLASSES).repeat(300)
    drawn = drawn_negatives(classes, CLASSES, share)
    assert drawn.shape == (len(classes), count)
    assert not (drawn == classes[:, None]).any()
    assert (drawn.sort(dim=1).values.diff(dim=1) > 0).all()
    shares = np.bincount(drawn.flatten().numpy(), minlength=CLASSES) / drawn.numel()
    np.testing.assert_allclose(shares, 1 / CLASSES, atol=0.03)


def test_one_class_has_no_negatives(hidden: torch.Tensor) -> None:
    only = nn.Linear(WIDTH, 1)
    loss = classifier_loss(
        only, hidden, torch.zeros(PRODUCTS, dtype=torch.int64), Strategy(negatives=0.7), 0
    )
    wanted = -torch.log(torch.sigmoid(only(hidden))).mean()
    torch.testing.assert_close(loss, wanted)
