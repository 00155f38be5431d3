"""Pairs: found, cropped and turned alike, refused with reasons."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from traiNNer.data import build_dataset, check_datasets
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.images import ImageError, write_image

from .pairs import COUNT, SIZE, Make, enlarged, located


def draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_crops_are_aligned_and_cover_every_place_and_orientation(make: Make) -> None:
    dataset = make()
    places, orientations = set(), set()
    for seed in range(1500):
        sample = dataset.stored_sample(seed % COUNT, draw(seed))
        lq, gt = sample["lq"].numpy(), sample["gt"].numpy()
        assert lq.shape == (3, 4, 4)
        assert np.array_equal(gt, enlarged(lq.transpose(1, 2, 0)).transpose(2, 0, 1))
        assert (lq[2] == seed % COUNT).all()
        rows, columns = lq[0].astype(int), lq[1].astype(int)
        places.add((rows.min(), columns.min()))
        transposed = rows[0, 0] != rows[0, 1]
        down, right = (rows.T, columns.T) if transposed else (rows, columns)
        orientations.add((transposed, down[0, 0] < down[1, 0], right[0, 0] < right[0, 1]))
    assert len(orientations) == 8
    assert places == {(row, column) for row in range(SIZE[0] - 3) for column in range(SIZE[1] - 3)}


def test_flips_can_be_switched_off_and_change_nothing_else(make: Make) -> None:
    upright, flipped, turned = make(use_hflip=False, use_rot=False), make(use_rot=False), make(use_hflip=False)
    kinds = set()
    for seed in range(30):
        plain = upright.stored_sample(0, draw(seed))["lq"]
        assert plain[0, 1, 0] > plain[0, 0, 0]
        assert plain[1, 0, 1] > plain[1, 0, 0]
        by_hflip, by_rot = flipped.stored_sample(0, draw(seed))["lq"], turned.stored_sample(0, draw(seed))["lq"]
        assert torch.equal(by_hflip, plain) or torch.equal(by_hflip, plain.flip(2))
        views = [plain, plain.flip(1), plain.transpose(1, 2), plain.flip(1).transpose(1, 2)]
        kinds.add(next(kind for kind, view in enumerate(views) if torch.equal(by_rot, view)))
    assert kinds == {0, 1, 2, 3}


def test_gt_size_and_lq_size_mean_the_same(make: Make) -> None:
    samples = [make(**sizes).sample(1, draw(3)) for sizes in ({}, {"gt_size": 8}, {"lq_size": None, "gt_size": 8})]
    assert samples[0]["gt"].dtype == torch.float32
    assert samples[0]["gt"].max() <= 1
    assert all(torch.equal(sample["gt"], samples[0]["gt"]) for sample in samples)


def test_validation_reads_whole_images_and_cuts_what_gt_has_too_much(make: Make, folder: Path) -> None:
    whole = np.pad(enlarged(located(0)), ((0, 1), (0, 1), (0, 0)), mode="edge")
    write_image(folder / "gt" / "0.png", whole)
    dataset = make(phase="val", gt_size=8)
    check_datasets({"val": dataset})
    sample = dataset.stored_sample(0, draw(0))
    assert np.array_equal(sample["gt"].numpy().transpose(1, 2, 0), enlarged(located(0)))
    assert np.array_equal(sample["lq"].numpy().transpose(1, 2, 0), located(0))
    with pytest.raises(ImageError, match="is 15 x 12 px, but its GT is 31 x 25; at scale 2 it must be 30 x 24"):
        make().stored_sample(0, draw(0))


def test_pairs_by_template_suffix_folder_lists_and_meta_info(make: Make, folder: Path) -> None:
    for number in range(COUNT):
        (folder / "lq" / f"{number}.png").rename(folder / "lq" / f"{number}x2.png")
    write_image(folder / "lq2" / "deep" / "a.bx2.webp", located(50))
    write_image(folder / "gt2" / "deep" / "a.b.png", enlarged(located(50)))
    roots = {
        "dataroot_gt": [str(folder / "gt"), str(folder / "gt2")],
        "dataroot_lq": [str(folder / "lq"), str(folder / "lq2")],
        "filename_tmpl": "{}x2",
    }
    dataset = make(**roots)
    assert len(dataset) == COUNT + 1
    sample = dataset.stored_sample(COUNT, draw(0))
    assert (Path(sample["gt_path"]), Path(sample["lq_path"])) == (
        folder / "gt2" / "deep" / "a.b.png",
        folder / "lq2" / "deep" / "a.bx2.webp",
    )
    listed = folder / "meta.txt"
    listed.write_text("5.png (24,30,3)\n1.png\n\ndeep/a.b.png (24, 30, 3)\n", encoding="utf-8")
    chosen = make(**roots, meta_info=str(listed))
    assert [Path(chosen.sample(index, draw(0))["gt_path"]).name for index in range(3)] == ["5.png", "1.png", "a.b.png"]
    assert check_datasets({"train": chosen}) == []


def test_of_two_partners_the_one_with_the_same_suffix_is_meant(make: Make, folder: Path) -> None:
    write_image(folder / "lq" / "3.webp", located(3))
    dataset = make()
    assert check_datasets({"train": dataset}) == []
    assert dataset.sample(3, draw(0))["lq_path"] == str(folder / "lq" / "3.png")


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"gt_size": 10}, "gt_size", "found 10 with lq_size 4 at scale 2; accepted: 8, or one alone"),
    ({"gt_size": 7, "lq_size": None}, "gt_size", "found 7; accepted: a multiple of the scale, 2"),
    ({"lq_size": None}, "lq_size", "required key is missing; accepted: lq_size or gt_size"),
    ({"phase": "val", "gt_size": 10}, "gt_size", "found 10 with lq_size 4"),
    ({"dataroot_gt": None}, "dataroot_gt", "required key is missing; accepted: a folder or a list of folders"),
    ({"dataroot_gt": "nowhere"}, "dataroot_gt", "the folder nowhere does not exist"),
    ({"dataroot_gt": __file__}, "dataroot_gt", "cannot be read: not a folder"),
    ({"dataroot_gt": str(Path(__file__).parent)}, "dataroot_gt", "holds no images; accepted: png, jpg"),
    ({"dataroot_lq": ["a", "b"]}, "dataroot_lq", "found 2 folders; accepted: one for each of dataroot_gt's 1"),
    ({"meta_info": "nowhere.txt"}, "meta_info", "nowhere.txt cannot be read"),
    ({"meta_info": __file__}, "meta_info", "are not in dataroot_gt"),
    ({"filename_tmpl": "x2"}, "filename_tmpl", "a name without suffix in which {} stands for"),
    ({"filename_tmpl": "lq/{}"}, "filename_tmpl", "a name without suffix in which {} stands for"),
    ({"io_backend": {"type": "lmdb"}}, "io_backend", "accepted: {type: disk}; lmdb is not supported yet"),
    ({"scale": 0}, "scale", "accepted"),
    ({"use_hflip": 1}, "use_hflip", "accepted"),
    ({"use_flip": True}, "use_flip", "(did you mean use_hflip?)"),
]


@pytest.mark.parametrize(("options", "key", "message"), MISTAKES)
def test_mistakes_name_the_option(options: dict[str, Any], key: str, message: str, make: Make) -> None:
    with pytest.raises(ConfigError) as error:
        make(**options)
    assert any(problem.key == key and message in problem.message for problem in error.value.problems), str(error.value)


def test_all_mistakes_come_together(make: Make) -> None:
    with pytest.raises(ConfigError) as error:
        make(dataroot_gt="nowhere", dataroot_lq="elsewhere", gt_size=7)
    assert [problem.key for problem in error.value.problems] == ["gt_size", "dataroot_gt", "dataroot_lq"]


def test_single_images(folder: Path) -> None:
    dataset = build_dataset(
        {"type": "singleimagedataset", "scale": 2, "dataroot_lq": str(folder / "lq"), "name": "one"}
    )
    sample = dataset.sample(2, draw(0))
    assert np.array_equal((sample["lq"] * 255).round().numpy().transpose(1, 2, 0), located(2))
    assert sample["lq_path"] == str(folder / "lq" / "2.png")
    assert "gt" not in sample
    with pytest.raises(ConfigError, match="has no GT to train on"):
        build_dataset({"type": "SingleImageDataset", "phase": "train", "dataroot_lq": str(folder / "lq")})


def test_data_sets_can_be_pickled_and_describe_themselves(make: Make) -> None:
    for dataset in (make(), make(dataroot_lq=None, phase="val")):
        again = pickle.loads(pickle.dumps(dataset))
        assert torch.equal(again.sample(1, draw(1))["lq"], dataset.sample(1, draw(1))["lq"])
    assert make().describe()["crop"] == "GT 8 px, LQ 4 px"
    assert make(dataroot_lq=None).describe()["lq"] == "made from GT, bicubic with antialiasing"
