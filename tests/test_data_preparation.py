"""The scripts that prepare folders of images, run on folders: tiles of images and pairs, scores, mistakes."""

from __future__ import annotations

import csv
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.data_preparation import extract_subimages, score_complexity
from tests.photographs import blurred, photograph
from traiNNer.data.tiles import tile_starts, tiles_of
from traiNNer.utils.images import image_names, read_image, write_image


def located(height: int, width: int, depth: type = np.uint8) -> np.ndarray:
    """An image whose pixels say where they are."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, rows // 256 + columns // 256 * 16], -1).astype(depth)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 200), st.integers(0, 30))
def test_tiles_cover_a_side_up_to_the_border(size: int, step: int, more: int, least: int) -> None:
    length = size + more
    starts = tile_starts(length, size, step, least)
    assert starts[0] == 0
    assert all(0 < after - before <= step for before, after in pairwise(starts))
    rest = length - size - starts[-1]
    assert rest == 0 or (rest == more % step and rest <= least)


def test_an_image_smaller_than_a_tile_is_one() -> None:
    assert tiles_of(20, 90, size=32, step=16) == [(0, 0, 20, 90)]
    assert len(tiles_of(64, 80, size=32, step=16)) == 3 * 4


def test_images_are_cut_with_overlap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    image = located(100, 150)
    write_image(source / "deep" / "a.png", image)
    write_image(source / "b.tiff", located(64, 64, np.uint16) * 257)
    write_image(source / "small.png", located(40, 90))
    (source / "broken.png").write_bytes(b"\x89PNG no")
    arguments = [str(source), str(target), "--size", "64", "--step", "32", "--workers", "2"]
    assert extract_subimages.main(arguments) == 1
    said = capsys.readouterr()
    assert f"skipped: {source / 'broken.png'}: " in said.err
    assert "1 of 4 images could not be used" in said.err
    assert "1 of 4 images smaller than a tile: skipped (--small keep takes them whole)" in said.out
    assert f"{3 * 4 + 1} tiles in {target}" in said.out
    assert image_names(target) == ["b_s001.png", *(f"deep/a_s{number:03d}.png" for number in range(1, 13))]
    corners = [(top, left) for top in (0, 32, 36) for left in (0, 32, 64, 86)]
    for number, (top, left) in enumerate(corners, 1):
        tile = read_image(target / "deep" / f"a_s{number:03d}.png")
        assert (tile == image[top : top + 64, left : left + 64]).all()
    assert (read_image(target / "b_s001.png") == read_image(source / "b.tiff")).all()
    assert read_image(target / "b_s001.png").dtype == np.uint16

    (source / "broken.png").unlink()
    arguments[1] = str(tmp_path / "kept")
    assert extract_subimages.main([*arguments, "--small", "keep", "--thresh-size", "22"]) == 0
    assert len(image_names(tmp_path / "kept" / "deep")) == 2 * 3  # 4 px below are not worth tiles, nor 22 at the right
    assert read_image(tmp_path / "kept" / "small_s001.png").shape == (40, 90, 3)


def test_pairs_are_cut_at_the_same_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "pairs", tmp_path / "out"
    lq = located(50, 61)
    write_image(source / "gt" / "deep" / "a.png", np.repeat(np.repeat(lq, 2, 0), 2, 1))
    write_image(source / "lq" / "deep" / "ax2.bmp", lq)
    write_image(source / "gt" / "other.png", located(80, 80))
    write_image(source / "lq" / "otherx2.png", located(41, 40))
    arguments = [str(source / "gt"), str(target), "--lq", str(source / "lq"), "--scale", "2", "--size", "32"]
    assert extract_subimages.main([*arguments, "--filename-tmpl", "{}x2"]) == 1
    said = capsys.readouterr()
    assert "otherx2.png: has 40 x 41 px, but" in said.err
    names = image_names(target / "gt")
    assert names == image_names(target / "lq")
    assert len(names) == 6 * 7
    assert f"{len(names)} tiles of each kind in {target}" in said.out
    for name in names:
        large, small = read_image(target / "gt" / name), read_image(target / "lq" / name)
        assert small.shape == (16, 16, 3)
        assert (large == np.repeat(np.repeat(small, 2, 0), 2, 1)).all()


@pytest.fixture
def pieces(tmp_path: Path) -> Path:
    """A photograph's pieces, sharp and blurred, with LQ images; a flat one, and one that is damaged."""
    image = photograph("coffee.png")[:256, :256]
    for name, each in (("sharp", image), ("deep/soft", blurred(image, 4)), ("flat", np.full_like(image, 99))):
        write_image(tmp_path / "gt" / f"{name}.png", each)
        write_image(tmp_path / "lq" / f"{name}.webp", np.ascontiguousarray(each[::2, ::2]))
    return tmp_path


def test_scores_are_written_and_the_best_taken_with_their_lq(pieces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pieces / "gt" / "broken.png").write_bytes(b"\x89PNG no")
    (pieces / "lq" / "broken.webp").write_bytes(b"")
    arguments = [str(pieces / "gt"), "--lq", str(pieces / "lq"), "--threshold", "0.2"]
    results = ["--csv", str(pieces / "results" / "s.csv"), "--histogram", str(pieces / "results" / "s.png")]
    assert score_complexity.main([*arguments, *results, "--copy", str(pieces / "taken"), "--workers", "2"]) == 1
    said = capsys.readouterr().err
    assert f"skipped: {pieces / 'gt' / 'broken.png'}: " in said
    assert "1 of 4 images could not be scored" in said
    assert f"2 reach 0.2, copied to {pieces / 'taken'}" in said
    with (pieces / "results" / "s.csv").open(encoding="utf-8") as file:
        table = {row["name"]: row for row in csv.DictReader(file)}
    scores = {name: float(row["score"]) for name, row in table.items()}
    assert scores["sharp.png"] > scores["deep/soft.png"] >= 0.2 > scores["flat.png"] == 0
    assert float(table["sharp.png"]["edge_density"]) > float(table["deep/soft.png"]["edge_density"])
    assert image_names(pieces / "taken") == [
        "gt/deep/soft.png", "gt/sharp.png", "lq/deep/soft.webp", "lq/sharp.webp",
    ]  # fmt: skip
    assert (pieces / "taken/lq/sharp.webp").read_bytes() == (pieces / "lq/sharp.webp").read_bytes()
    picture = read_image(pieces / "results" / "s.png")
    assert picture.shape[1] > picture.shape[0] > 300
    assert picture.std() > 20  # something is drawn


def test_names_are_listed_and_links_made(pieces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score_complexity.main([str(pieces / "gt"), "--threshold", "0.2", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == ["deep/soft.png", "sharp.png"]
    assert score_complexity.main([str(pieces / "gt"), "--link", str(pieces / "links")]) == 0
    (link,) = (pieces / "links").iterdir()
    assert link.is_symlink()
    assert link.resolve() == (pieces / "gt" / "sharp.png").resolve()


def test_a_list_of_none_is_empty(pieces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score_complexity.main([str(pieces / "gt"), "--list", "--threshold", "1"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("option", ["--csv", "--histogram"])
def test_a_folder_as_a_result_is_refused_before_the_work(
    pieces: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert score_complexity.main([str(pieces / "gt"), option, str(pieces)]) == 2
    assert capsys.readouterr().err.strip() == f"{option}: found {pieces}, a folder; accepted: a file"


def test_mistakes_are_one_line(pieces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gt, lq, used = (str(pieces / name) for name in ("gt", "lq", "used"))
    write_image(pieces / "used" / "a.png", located(20, 20))
    write_image(pieces / "twice" / "a.png", located(20, 20))
    write_image(pieces / "twice" / "a.bmp", located(20, 20))
    (pieces / "empty").mkdir()
    new, twice, empty = (str(pieces / name) for name in ("new", "twice", "empty"))
    cut, score = extract_subimages.main, score_complexity.main
    for program, arguments, message in (
        (cut, [new, empty], f"INPUT: the folder {new} does not exist"),
        (cut, [empty, new], f"INPUT: the folder {empty} holds no images; accepted: png"),
        (cut, [gt, used], f"OUTPUT: the folder {used} is not empty; accepted: a new or empty one"),
        (cut, [gt, f"{used}/a.png"], f"OUTPUT: found {used}/a.png, a file; accepted: a folder"),
        (cut, [gt, f"{gt}/tiles"], f"OUTPUT: found {gt}/tiles, which lies in {gt}; accepted: a folder outside it"),
        (cut, [twice, new], "INPUT: found a.bmp and a.png, whose tiles would have the same names"),
        (cut, [gt, new, "--scale", "2"], "--scale: found it without --lq"),
        (cut, [gt, new, "--lq", lq, "--scale", "2", "--size", "33"], "--size: found 33; accepted: a multiple of"),
        (cut, [gt, new, "--lq", lq, "--scale", "2", "--step", "5"], "--step: found 5; accepted: a multiple of"),
        (cut, [gt, new, "--lq", used, "--scale", "2"], f"--lq: 3 of 3 images: {pieces}/gt/deep/soft.png: has no LQ"),
        (cut, [gt, new, "--lq", lq, "--filename-tmpl", "x2"], "--filename-tmpl: found 'x2'; accepted: a name"),
        (score, [new], f"FOLDER: the folder {new} does not exist"),
        (score, [gt, "--copy", used], f"--copy: the folder {used} is not empty"),
        (score, [gt, "--link", f"{gt}/x"], f"--link: found {gt}/x, which lies in {gt}"),
        (score, [gt, "--lq", lq], "--lq: found it without --copy or --link"),
        (score, [gt, "--lq", used, "--copy", new], "--lq: 3 of 3 images: "),
    ):
        assert program(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith(message)
        assert said.count("\n") == 1
    assert not (pieces / "new").exists()
    assert image_names(used) == ["a.png"]
    for program, arguments in ((score, [gt, "--threshold", "2"]), (cut, [gt, new, "--size", "0"])):
        with pytest.raises(SystemExit, match="2"):
            program(arguments)
        assert "accepted: a" in capsys.readouterr().err


def test_they_run_from_a_shell_in_any_folder(tmp_path: Path) -> None:
    folder = Path(extract_subimages.__file__).parent
    started = [
        subprocess.Popen(
            [sys.executable, str(folder / script), "nowhere", *more],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for script, more in (("extract_subimages.py", ["tiles"]), ("score_complexity.py", []))
    ]
    for process, option in zip(started, ("INPUT", "FOLDER"), strict=True):
        said, wrong = process.communicate()
        assert (process.returncode, said) == (2, "")
        assert wrong == f"{option}: the folder nowhere does not exist\n"
