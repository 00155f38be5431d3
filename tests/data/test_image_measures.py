"""Measures of images: they order what is known to differ, and do not see what they must not see."""

from __future__ import annotations

import json
import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.photographs import PHOTOGRAPHS, SIGMA, blurred, file_of, photograph, versions
from traiNNer.data import build_dataset, measures
from traiNNer.data.complexity import complexity
from traiNNer.data.measures import CROP, CROPS, Measures, measure_dataset, measure_files
from traiNNer.training_automations.base import LossFacts
from traiNNer.training_automations.calibration import BLOCKY, NOISY, calibrate
from traiNNer.utils.image_measures import REFERENCE, ImageMeasures, measure_image, noise_level
from traiNNer.utils.images import write_image

LUMA_SIGMA = SIGMA * float(np.hypot(np.hypot(0.299, 0.587), 0.114))


@pytest.fixture(scope="module")
def medians() -> dict[str, ImageMeasures]:
    """Of each version, over four pieces of each photograph."""
    rows: dict[str, list[list[float]]] = {}
    for name in PHOTOGRAPHS:
        for version, image in versions(photograph(name)[:872]).items():
            rooms = [side - CROP for side in image.shape[:2]]
            for top, left in ((0.1, 0.3), (0.35, 0.8), (0.6, 0.1), (0.9, 0.6)):
                corner = int(top * rooms[0]), int(left * rooms[1])
                piece = image[corner[0] : corner[0] + CROP, corner[1] : corner[1] + CROP]
                rows.setdefault(version, []).append(list(measure_image(piece).by_name().values()))
    names = ImageMeasures.names()
    return {
        version: ImageMeasures(**dict(zip(names, np.median(found, 0).tolist(), strict=True)))
        for version, found in rows.items()
    }


def check_order(of: dict[str, ImageMeasures], *, loose: float) -> None:
    """What must hold of the four versions of the same images; `loose` is for what should not change at all."""
    as_is, soft, noisy, jpeg = (of[version] for version in ("as_is", "blurred", "noisy", "jpeg"))
    assert soft.texture_variance < 0.75 * as_is.texture_variance
    assert jpeg.texture_variance == pytest.approx(as_is.texture_variance, rel=loose)
    assert noisy.texture_variance == pytest.approx(as_is.texture_variance, rel=loose)  # noise is no texture
    assert soft.edge_density < 0.8 * as_is.edge_density
    assert jpeg.edge_density == pytest.approx(as_is.edge_density, rel=loose)
    assert noisy.edge_density < as_is.edge_density  # noise is no edge; it hides weak ones
    assert soft.colorfulness < as_is.colorfulness < noisy.colorfulness
    assert jpeg.colorfulness < 1.05 * as_is.colorfulness
    assert max(soft.noise, jpeg.noise) < as_is.noise < NOISY < noisy.noise
    assert noisy.noise == pytest.approx(LUMA_SIGMA, rel=0.08)
    assert max(as_is.blockiness, soft.blockiness, noisy.blockiness) < BLOCKY < jpeg.blockiness


def test_each_measure_orders_the_four_versions(medians: dict[str, ImageMeasures]) -> None:
    check_order(medians, loose=0.05)


@pytest.mark.parametrize("name", [name for name in PHOTOGRAPHS if name != "retina.jpg"])
def test_each_measure_orders_the_versions_of_each_photograph(name: str) -> None:
    """The retina is left out: half of it is clipped black, and it has one edge, which blur makes wider."""
    image = photograph(name)[:512, :512]
    loose = 0.1 if name != "hubble_deep_field.jpg" else 0.15
    check_order({version: measure_image(each) for version, each in versions(image).items()}, loose=loose)


def test_calibration_tells_the_versions_apart(medians: dict[str, ImageMeasures]) -> None:
    """A usual set of losses: at least 10 % between two versions, and near 1 for the photographs as they are."""
    kinds = {"l1loss": "pixel", "mssimloss": "structure", "perceptualloss": "perceptual", "ganloss": "adversarial"}
    losses = {label: LossFacts(kind=kind) for label, kind in kinds.items()}
    found = {version: calibrate(each.by_name(), losses) for version, each in medians.items()}
    assert found["as_is"] == pytest.approx(dict.fromkeys(kinds, 1.0), rel=0.02)
    for version in ("blurred", "noisy", "jpeg"):
        assert max(abs(found[version][label] / found["as_is"][label] - 1) for label in kinds) > 0.1, version
    assert found["noisy"]["ganloss"] < 0.7
    assert found["noisy"]["perceptualloss"] > 1.1
    assert found["jpeg"]["ganloss"] < 0.7
    assert found["blurred"]["mssimloss"] < found["blurred"]["l1loss"] / 1.1


def test_any_seed_gives_the_reference_and_512_crops_take_seconds() -> None:
    """Each measure within 5 % of what was measured once."""
    files = [str(file_of(name)) for name in PHOTOGRAPHS]
    for seed in (1, 2):
        started = time.perf_counter()
        found = measure_files(files, seed=seed)
        assert time.perf_counter() - started < 15
        assert found is not None
        assert (found.crops, found.images) == (CROPS, len(PHOTOGRAPHS))
        assert found.medians.by_name() == pytest.approx(REFERENCE.by_name(), rel=0.05)


@pytest.mark.parametrize("size", [(256, 256), (253, 302)])
def test_flips_and_turns_change_nothing(size: tuple[int, int]) -> None:
    for name in ("astronaut.png", "rocket.jpg"):
        image = versions(photograph(name)[100 : 100 + size[0], 100 : 100 + size[1]])["jpeg"]
        expected = measure_image(image).by_name()
        for other in (image[::-1], image[:, ::-1], np.rot90(image), image.transpose(1, 0, 2)):
            assert measure_image(other).by_name() == pytest.approx(expected, rel=0.02)


def test_the_size_does_not_matter() -> None:
    """Four mirrored copies are one image of four times the size."""
    image = photograph("coffee.png")[:256, :256]
    wide = np.concatenate([image, image[:, ::-1]], 1)
    large = measure_image(np.concatenate([wide, wide[::-1]], 0)).by_name()
    assert large == pytest.approx(measure_image(image).by_name(), rel=0.03)


def test_16_bits_give_what_8_bits_give() -> None:
    image = photograph("coffee.png")[:128, :128]
    assert measure_image(image.astype(np.uint16) * 257).by_name() == pytest.approx(
        measure_image(image).by_name(), rel=1e-4
    )


def test_known_images() -> None:
    flat = measure_image(np.full((64, 80, 3), 90, np.uint8))
    assert flat == ImageMeasures(texture_variance=0, edge_density=0, colorfulness=0, noise=0, blockiness=1)
    red = measure_image(np.broadcast_to(np.array([200, 0, 0], np.uint8), (32, 32, 3)))
    assert red.colorfulness == pytest.approx(0.3 * np.hypot(200, 100))  # Hasler and Suesstrunk's, without spread
    step = np.zeros((64, 64, 3), np.uint8)
    step[:, 32:] = 200
    assert measure_image(step).edge_density == pytest.approx(2 / 62)  # a step is two px wide for Sobel
    for sigma in (2.0, 10.0, 30.0):
        noise = np.random.default_rng(1).normal(128, sigma, (256, 256)).astype(np.float32)
        assert noise_level(noise) == pytest.approx(sigma, rel=0.06)
    with pytest.raises(ValueError, match="at least 16 px"):
        measure_image(np.zeros((15, 40, 3), np.uint8))


@pytest.mark.parametrize("quality_grid", range(0, 8, 3))
def test_a_grid_is_found_wherever_it_begins(quality_grid: int) -> None:
    image = versions(photograph("coffee.png")[:264, :264])["jpeg"]
    cut = image[quality_grid : quality_grid + 256, quality_grid : quality_grid + 256]
    assert measure_image(cut).blockiness > BLOCKY


def test_complexity_falls_with_blur_and_ignores_noise() -> None:
    for name in PHOTOGRAPHS:
        image = photograph(name)[40:296, 40:296]
        scores = [complexity(measure_image(blurred(image, sigma) if sigma else image)) for sigma in (0, 0.7, 1.5, 3, 6)]
        assert all(before > after for before, after in pairwise(scores)), (name, scores)
        assert 0 < scores[-1] < scores[0] < 1
    generator = np.random.default_rng(0)
    for sigma in (5, 20, 60):
        noise = np.clip(np.rint(generator.normal(128, sigma, (256, 256, 3))), 0, 255).astype(np.uint8)
        assert complexity(measure_image(noise)) < 0.02
    assert complexity(measure_image(np.full((64, 64, 3), 90, np.uint8))) == 0
    assert complexity(REFERENCE) == 0.5


def paired(folder: Path) -> measures.ImageDataset:
    return build_dataset(
        {"type": "PairedImageDataset", "name": "photographs", "scale": 2, "dataroot_gt": str(folder), "lq_size": 8}
    )


def test_a_result_is_remembered_while_the_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    for number in range(3):
        write_image(tmp_path / "gt" / f"{number}.png", generator.integers(0, 256, (40, 300, 3), dtype=np.uint8))
    cache = tmp_path / "runs" / ".cache"
    calls: list[int] = []

    def counted(files: list[str], *, seed: int) -> Measures | None:
        calls.append(seed)
        return measure_files(files, seed=seed)

    monkeypatch.setattr(measures, "measure_files", counted)
    first = measure_dataset(paired(tmp_path / "gt"), seed=3, cache_folder=cache)
    assert isinstance(first, Measures)
    assert first.crops == 3 * (300 - CROP + 1)  # no place twice, of those that a height of 40 px leaves
    assert measure_dataset(paired(tmp_path / "gt"), seed=3, cache_folder=cache) == first
    assert calls == [3]
    measure_dataset(paired(tmp_path / "gt"), seed=4, cache_folder=cache)
    os.utime(tmp_path / "gt" / "1.png", ns=(1, 1))
    assert measure_dataset(paired(tmp_path / "gt"), seed=3, cache_folder=cache) == first
    assert calls == [3, 4, 3]
    (file,) = cache.iterdir()
    assert len(json.loads(file.read_text(encoding="utf-8"))["sets"]) == 3
    file.write_text("{", encoding="utf-8")
    assert measure_dataset(paired(tmp_path / "gt"), seed=3, cache_folder=cache) == first
    assert calls == [3, 4, 3, 3]


def test_what_has_no_measures_says_why(tmp_path: Path) -> None:
    for folder in ("fields", "small", "images"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "fields" / "a.npy", np.zeros((2, 32, 32), np.float32))
    write_image(tmp_path / "small" / "a.png", np.zeros((12, 40, 3), np.uint8))
    write_image(tmp_path / "images" / "a.png", np.zeros((32, 40, 3), np.uint8))
    fields = {"type": "PairedArrayDataset", "scale": 2, "dataroot_gt": str(tmp_path / "fields"), "lq_size": 8}
    assert "fields" in str(measure_dataset(build_dataset(fields), seed=0))
    assert "16 px" in str(measure_dataset(paired(tmp_path / "small"), seed=0))
    single = build_dataset({"type": "SingleImageDataset", "dataroot_lq": str(tmp_path / "images")})
    found = measure_dataset(single, seed=0)
    assert isinstance(found, Measures)
    assert (found.crops, found.images, found.medians.noise) == (1, 1, 0.0)
