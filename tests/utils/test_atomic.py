"""Files are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from traiNNer.utils.atomic import MARK, FileSet, atomic_write, remove_leftovers


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_bytes_and_utf8_text_and_replaces_what_was_there(tmp_path: Path) -> None:
    atomic_write(tmp_path / "file", b"\x00\xff")
    assert (tmp_path / "file").read_bytes() == b"\x00\xff"
    atomic_write(tmp_path / "file", "größer\n")
    assert (tmp_path / "file").read_bytes() == "größer\n".encode()
    assert names(tmp_path) == ["file"]


def test_a_failure_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    atomic_write(tmp_path / "file", b"old")
    with pytest.raises(UnicodeEncodeError):
        atomic_write(tmp_path / "file", "\ud800")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_nothing_has_its_name_before_the_commit(tmp_path: Path) -> None:
    with FileSet() as files:
        files.add(tmp_path / "a").write_bytes(b"a")
        files.add(tmp_path / "b").write_bytes(b"b")
        assert all(name.endswith(MARK) for name in names(tmp_path))
        files.commit()
        assert names(tmp_path) == ["a", "b"]


def test_leaving_without_commit_leaves_nothing(tmp_path: Path) -> None:
    with FileSet() as files:
        files.add(tmp_path / "a").write_bytes(b"a")
    assert names(tmp_path) == []


def test_a_file_cannot_be_added_twice(tmp_path: Path) -> None:
    with FileSet() as files:
        files.add(tmp_path / "a")
        with pytest.raises(ValueError, match="twice"):
            files.add(tmp_path / "a")


def test_a_set_that_cannot_be_completed_is_taken_back(tmp_path: Path) -> None:
    (tmp_path / "last" / "full").mkdir(parents=True)  # a folder cannot be replaced by a file
    (tmp_path / "replaced").write_bytes(b"old")
    with pytest.raises(OSError), FileSet() as files:  # noqa: PT011, PT012 - which one depends on the system
        files.add(tmp_path / "first").write_bytes(b"1")
        files.add(tmp_path / "last").write_bytes(b"2")
        files.commit()
    assert names(tmp_path) == ["last", "replaced"]


def test_the_last_file_added_is_renamed_last(tmp_path: Path) -> None:
    (tmp_path / "first" / "full").mkdir(parents=True)
    with pytest.raises(OSError), FileSet() as files:  # noqa: PT011, PT012
        files.add(tmp_path / "first").write_bytes(b"1")
        files.add(tmp_path / "mark").write_bytes(b"2")
        files.commit()
    assert names(tmp_path) == ["first"]


def test_a_file_that_a_scanner_holds_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses to replace a file that another process has open; elsewhere this has to be played."""
    attempts = []
    real = Path.replace

    def held_twice(path: Path, target: Path) -> Path:
        attempts.append(path)
        if len(attempts) < 3:
            raise PermissionError("held by a scanner")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", held_twice)
    atomic_write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert len(attempts) == 3


def test_only_our_own_leftovers_are_removed(tmp_path: Path) -> None:
    leftover = FileSet().add(tmp_path / "10.state")
    leftover.write_bytes(b"half")
    for name in ("10.state", "notes.tmp", f"visible{MARK}"):
        (tmp_path / name).write_bytes(b"")
    assert remove_leftovers(tmp_path) == [leftover]
    assert names(tmp_path) == ["10.state", "notes.tmp", f"visible{MARK}"]


def test_the_last_one_added_gets_its_name_when_the_others_have_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between two renames, which takes microseconds, must not leave the file that vouches for the others."""
    order: list[str] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        order.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    with FileSet() as files:
        for name in ("c", "a", "b"):
            files.add(tmp_path / name).write_bytes(b"")
        files.commit()
    assert order == ["c", "a", "b"]
