import os
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from models.errors import ReleaseError, SortimentError
from models.manifest import MANIFEST
from models.noop import noop_release
from models.release import read_release
from models.release_store import fetch_release, move_directory, upload_release, write_directory
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


def test_what_a_killed_process_had_fetched_is_removed_after_a_day(
    remote: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    names = {age: f".{'a' * 32}.{age}" for age in ("abandoned", "recent")}
    for folder in (*names.values(), ".mine"):
        (cache / folder).mkdir(parents=True)
        (cache / folder / "weights").touch()
    yesterday = time.time() - 2 * 86_400
    for folder in (names["abandoned"], ".mine"):
        os.utime(cache / folder, (yesterday, yesterday))
    directory = fetch_release(ADDRESS, cache)
    left = sorted(path.name for path in cache.iterdir())
    assert left == sorted([names["recent"], ".mine", directory.name])


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


@pytest.fixture
def uploads() -> Iterator[fsspec.AbstractFileSystem]:
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()


def test_an_uploaded_release_is_fetched_as_it_was(
    uploads: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    release = noop_release(tmp_path / "source", TAXONOMY)
    upload_release(release.directory, f"{ADDRESS}/")
    fetched = read_release(fetch_release(ADDRESS, tmp_path / "cache"))
    assert fetched.manifest_sha256 == release.manifest_sha256
    before = uploads.find("/releases", detail=True)
    with pytest.raises(ReleaseError, match="already at memory://releases/noop/1, and never"):
        upload_release(noop_release(tmp_path / "other", TAXONOMY).directory, ADDRESS)
    assert uploads.find("/releases", detail=True) == before


def test_an_interrupted_upload_is_no_release_and_is_completed(
    uploads: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = noop_release(tmp_path / "source", TAXONOMY)
    put_file, done = type(uploads).put_file, list[str]()

    def fail_at_second(self: object, local: str, remote: str, **kwargs: object) -> None:
        if done:
            raise ConnectionError("reset by peer")
        done.append(remote)
        put_file(self, local, remote, **kwargs)

    monkeypatch.setattr(type(uploads), "put_file", fail_at_second)
    with pytest.raises(ReleaseError, match=r"cannot be copied.*reset by peer; .* same command"):
        upload_release(release.directory, ADDRESS)
    assert len(uploads.find("/releases")) == 1
    with pytest.raises(ReleaseError, match="no release at"):
        fetch_release(ADDRESS, tmp_path / "cache")
    monkeypatch.undo()
    upload_release(release.directory, ADDRESS)
    assert read_release(fetch_release(ADDRESS, tmp_path / "cache")).id == "noop/1"


def test_a_store_that_fails_is_not_taken_for_an_empty_one(
    uploads: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = noop_release(tmp_path / "source", TAXONOMY)

    def fail(*_: object, **__: object) -> None:
        raise PermissionError("no access")

    monkeypatch.setattr(type(uploads), "info", fail)
    with pytest.raises(ReleaseError, match=r"cannot be copied.*no access"):
        upload_release(release.directory, ADDRESS)
    monkeypatch.undo()
    assert uploads.find("/releases") == []


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    release = noop_release(tmp_path / "source", TAXONOMY)
    with pytest.raises(ReleaseError) as refused:
        upload_release(release.directory, "what://user:secret@host/path")
    assert "cannot be copied to what://***@host/path" in str(refused.value)
    assert "secret" not in str(refused.value)


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
