from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.encoders import TextEncoder, load_pretrained
from models.errors import SortimentError
from models.prepare import Ragged
from tests.small_disk import small_disk
from tests.tiny_encoder import save_tiny_bert
from training import features as features_module
from training.features import cached_features, encode_tokens, encoder_digest


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    directory = save_tiny_bert(tmp_path_factory.mktemp("encoder"))
    return load_pretrained(str(directory), pooling="concat").encoder.eval()


def tokens(count: int = 10, seed: int = 0) -> Ragged:
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 20, count)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return Ragged(random.integers(5, 60, indptr[-1]).astype(np.int32), indptr)


def test_features_are_those_of_each_product(encoder: TextEncoder) -> None:
    rows = tokens()
    found = encode_tokens(encoder, rows)
    for row in range(len(rows)):
        ids = torch.from_numpy(rows.values[rows.indptr[row] : rows.indptr[row + 1]])[None].long()
        with torch.inference_mode():
            alone = encoder(ids, torch.ones_like(ids))[0].numpy()
        np.testing.assert_allclose(found[row], alone, atol=5e-3)


def test_an_entry_is_computed_once(
    encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = encoder_digest(encoder)
    first = cached_features(encoder, tokens(), tmp_path, digest=digest)
    monkeypatch.setattr(features_module, "encode_tokens", None)
    advanced: list[int] = []
    again = cached_features(encoder, tokens(), tmp_path, digest=digest, advance=advanced.append)
    np.testing.assert_array_equal(first, again)
    assert advanced == [10]
    assert isinstance(again, np.memmap)


def test_an_interrupted_entry_goes_on(
    encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "_CHUNK_ROWS", 4)
    digest = encoder_digest(encoder)
    wanted = np.array(cached_features(encoder, tokens(), tmp_path / "whole", digest=digest))

    class Stop(Exception):
        pass

    def stop(rows: int) -> None:
        if rows == 4:
            raise Stop

    with pytest.raises(Stop):
        cached_features(encoder, tokens(), tmp_path / "cut", digest=digest, advance=stop)
    advanced: list[int] = []
    found = cached_features(
        encoder, tokens(), tmp_path / "cut", digest=digest, advance=advanced.append
    )
    assert advanced == [4, 4, 2]
    np.testing.assert_array_equal(found, wanted)


def test_an_entry_that_the_disk_has_no_room_for_goes_on(
    encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "_CHUNK_ROWS", 4)
    digest = encoder_digest(encoder)
    wanted = np.array(cached_features(encoder, tokens(), tmp_path / "whole", digest=digest))
    advanced: list[int] = []
    with (
        small_disk(6 * wanted.shape[1] * 2),
        pytest.raises(SortimentError, match=r"features\.f16 cannot be written"),
    ):
        cached_features(encoder, tokens(), tmp_path, digest=digest, advance=advanced.append)
    assert advanced == [0, 4]
    found = cached_features(encoder, tokens(), tmp_path, digest=digest, advance=advanced.append)
    assert advanced == [0, 4, 4, 4, 2]
    np.testing.assert_array_equal(found, wanted)


def test_other_texts_or_another_encoder_are_another_entry(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    digest = encoder_digest(encoder)
    cached_features(encoder, tokens(seed=0), tmp_path, digest=digest)
    cached_features(encoder, tokens(seed=1), tmp_path, digest=digest)
    with torch.no_grad():
        next(encoder.parameters()).add_(1)
    other = encoder_digest(encoder)
    assert other != digest
    cached_features(encoder, tokens(seed=0), tmp_path, digest=other)
    assert len(list((tmp_path / "features").iterdir())) == 3


def test_no_products(encoder: TextEncoder, tmp_path: Path) -> None:
    none = Ragged(np.empty(0, dtype=np.int32), np.zeros(1, dtype=np.int64))
    assert cached_features(encoder, none, tmp_path, digest="d").shape == (0, 32)


def test_segments_decide_too(encoder: TextEncoder, tmp_path: Path) -> None:
    rows = tokens(4)
    segments = Ragged(np.arange(len(rows.values), dtype=np.int8) % 2, rows.indptr)
    digest = encoder_digest(encoder)
    plain = cached_features(encoder, rows, tmp_path, digest=digest)
    found = cached_features(encoder, rows, tmp_path, digest=digest, segments=segments)
    assert len(list((tmp_path / "features").iterdir())) == 2
    assert not np.array_equal(plain, found)
    ids = torch.from_numpy(rows.values[: rows.indptr[1]])[None].long()
    of_first = torch.from_numpy(segments.values[: rows.indptr[1]])[None].long()
    with torch.inference_mode():
        alone = encoder(ids, torch.ones_like(ids), of_first)[0].numpy()
    np.testing.assert_allclose(found[0], alone, atol=5e-3)
