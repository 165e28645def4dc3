from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from models.errors import ReleaseError, SortimentError
from models.manifest import MANIFEST
from models.noop import noop_release
from models.release import fetch_release, read_release
from models.release_store import move_directory, write_directory
from tests.releases import TAXONOMY

ADDRESS = "memory://releases/noop/1"


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[fsspec.AbstractFileSystem]:
    """A release in fsspec's own memory: an address that is not a local path."""
    release = noop_release(tmp_path / "source", TAXONOMY)
    memory = fsspec.filesystem("memory")
    for path in [*release.files, MANIFEST]:
        memory.pipe_file(f"/releases/noop/1/{path}", (release.directory / path).read_bytes())
    yield memory
    memory.store.clear()


def test_local_paths_are_used_in_place(tmp_path: Path) -> None:
    release = noop_release(tmp_path / "a release", TAXONOMY)
    cache = tmp_path / "cache"
    assert fetch_release(str(release.directory), cache) == release.directory
    assert fetch_release(release.directory.as_uri(), cache) == release.directory
    assert not cache.exists()


@pytest.mark.parametrize("address", ["nowhere", "file:///nowhere/at/all", ADDRESS, "what://a/b"])
def test_an_address_without_a_release(address: str, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=f"no release at {address}"):
        fetch_release(address, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_release_from_elsewhere_is_copied_once(
    remote: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    directory = fetch_release(ADDRESS, cache)
    assert read_release(directory).id == "noop/1"
    assert directory.parent == cache
    remote.rm_file("/releases/noop/1/labels.json")
    assert fetch_release(f"{ADDRESS}/", cache) == directory
    assert [path.name for path in cache.iterdir()] == [directory.name]


def test_an_altered_copy_is_not_kept(remote: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    remote.pipe_file("/releases/noop/1/labels.json", b"[]")
    with pytest.raises(ReleaseError, match=r"labels\.json has 2 bytes"):
        fetch_release(ADDRESS, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_copy_that_is_not_whole_is_not_kept(
    remote: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    remote.rm_file("/releases/noop/1/labels.json")
    with pytest.raises(ReleaseError, match=f"the release at {ADDRESS} cannot be fetched"):
        fetch_release(ADDRESS, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_passwords_in_addresses_are_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError) as refused:
        fetch_release("what://user:secret@host/path", tmp_path)
    assert "secret" not in str(refused.value)
    assert "what://***@host/path" in str(refused.value)


def test_an_empty_directory_is_filled_and_a_full_one_is_not(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    write_directory(target, {"a/b": b"1"})
    assert (target / "a" / "b").read_bytes() == b"1"
    with pytest.raises(ReleaseError, match="already there"):
        write_directory(target, {"a/b": b"2"})
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(ReleaseError, match="cannot be written"):
        write_directory(file / "below", {"a": b""})


def test_a_release_never_takes_the_place_of_another(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with pytest.raises(SortimentError, match="already there"):
        move_directory(tmp_path / "one", tmp_path / "two")
    move_directory(tmp_path / "one", tmp_path / "three")
    assert (tmp_path / "three" / "file").exists()
