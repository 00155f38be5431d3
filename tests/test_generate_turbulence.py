"""The synthetic turbulence: no divergence, the asked-for spectrum, where LQ lies, and equal files for equal seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.generate_turbulence import (
    averaged,
    cut_off,
    energy_spectrum,
    interpolated,
    main,
    turbulence,
    wavenumbers,
)
from traiNNer.validation import bicubic

SIZE = 32


def divergence(velocity: np.ndarray) -> np.ndarray:
    down, across = wavenumbers(velocity.shape[-1])
    spectrum = np.fft.fft2(velocity)
    return np.fft.ifft2(1j * across * spectrum[0] + 1j * down * spectrum[1]).real


def curl(velocity: np.ndarray) -> np.ndarray:
    return divergence(np.stack([velocity[1], -velocity[0]]))


@pytest.mark.parametrize("size", [32, 64, 96])
def test_it_has_no_divergence(size: int) -> None:
    velocity = turbulence(np.random.default_rng(1), size)
    assert np.abs(divergence(velocity)).max() < 1e-10 * np.abs(curl(velocity)).max()
    assert np.square(velocity).mean() == pytest.approx(1)
    assert np.square(velocity[0]).mean() == pytest.approx(1, abs=0.5)  # neither component is empty


@pytest.mark.parametrize("slope", [-5 / 3, -3.0])
def test_its_energy_falls_with_the_slope(slope: float) -> None:
    fields = [turbulence(np.random.default_rng(seed), 128, slope=slope, largest=3) for seed in range(4)]
    energy = np.mean([energy_spectrum(field) for field in fields], axis=0)
    k = np.arange(1, len(energy) + 1)
    fitted = np.polyfit(np.log(k[5:60]), np.log(energy[5:60]), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.05)
    assert energy[:2].sum() < 1e-20


def _wave(wavenumber: int, size: int) -> np.ndarray:
    """Along the width, read at the centers of the pixels."""
    return np.cos(2 * np.pi * wavenumber * (np.arange(size) + 0.5) / size) * np.ones((2, size, 1))


def test_lq_is_the_mean_or_the_low_wavenumbers() -> None:
    field = turbulence(np.random.default_rng(2), 32)
    assert averaged(field, 2)[1, 3, 5] == pytest.approx(field[1, 6:8, 10:12].mean())
    smooth, small = (_wave(3, size) for size in (32, 16))
    rough = _wave(11, 32)
    np.testing.assert_allclose(cut_off(smooth + rough, 2), small, atol=1e-12)


def test_equal_arguments_write_equal_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--size", "16", "--train", "2", "--val", "1"]
    for folder, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert main([str(tmp_path / folder), *size, "--seed", seed]) == 0
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.npy"))
    assert [path.as_posix() for path in files] == [
        f"{name}.npy"
        for name in ("train/gt/0000", "train/gt/0001", "train/lq/0000", "train/lq/0001", "val/gt/0000", "val/lq/0000")
    ]
    first, second, other = ([np.load(tmp_path / folder / path) for path in files] for folder in "abc")
    assert all(map(np.array_equal, first, second))
    assert not any(map(np.array_equal, first, other))
    assert not np.array_equal(first[0], first[4])  # training and validation
    assert (first[0].shape, first[2].shape, first[0].dtype) == ((2, 16, 16), (2, 8, 8), np.float32)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "d"), "--size", "18"])
    assert "accepted: a multiple of twice the scale, 4" in capsys.readouterr().err


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("reduction", [averaged, cut_off])
def test_pixels_of_lq_lie_at_the_centers_of_squares_of_gt(reduction, scale: int) -> None:
    """So flips and transposition of both commute with the reduction."""
    gt = turbulence(np.random.default_rng(1), SIZE)
    lq = reduction(gt, scale)
    for turn in (lambda x: np.flip(x, 1), lambda x: np.flip(x, 2), lambda x: x.transpose(0, 2, 1)):
        np.testing.assert_allclose(reduction(turn(gt), scale), turn(lq), atol=1e-12)


def test_enlargement_of_lq_lies_where_gt_does() -> None:
    """Bicubic enlargement of a smooth field is near it; half a pixel of LQ would be an error of 0.2."""
    gt = turbulence(np.random.default_rng(2), SIZE, slope=-9)
    enlarged = bicubic(torch.from_numpy(cut_off(gt, 2))[None], 2, clamp=False)[0].numpy()
    inner = (slice(None), slice(6, -6), slice(6, -6))  # the enlargement is not periodic
    assert np.sqrt(np.square(enlarged - gt)[inner].mean()) < 0.02
    np.testing.assert_allclose(cut_off(interpolated(cut_off(gt, 2), 2), 2), cut_off(gt, 2), atol=1e-12)


def test_interpolation_has_the_spectrum_of_the_truth_up_to_the_cut_off() -> None:
    gt = turbulence(np.random.default_rng(3), SIZE)
    found, truth = energy_spectrum(interpolated(cut_off(gt, 2), 2)), energy_spectrum(gt)
    np.testing.assert_allclose(found[:6], truth[:6], rtol=1e-9, atol=1e-20)
    assert found[8:].max() < 1e-20


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--seed", "-1"], "argument --seed: found '-1'; accepted: a whole number, at least 0"),
        (["--slope", "nan"], "argument --slope: found 'nan'; accepted: a number from -10 to 10"),
        (["--slope", "500"], "found '500'"),
        (["--train", "0"], "found '0'; accepted: a whole number, at least 1"),
    ],
)
def test_wrong_arguments_are_messages(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "out"), *arguments])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_more_fields_is_not_mixed_with_new_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [str(tmp_path), "--size", "16", "--val", "1", "--train"]
    assert main([*small, "2"]) == main([*small, "2"]) == 0
    before = (tmp_path / "train" / "gt" / "0000.npy").read_bytes()
    assert main([*small, "1", "--seed", "7"]) == 2
    assert "train/gt holds 1 other files, such as 0001.npy; accepted: a new folder" in capsys.readouterr().err
    assert (tmp_path / "train" / "gt" / "0000.npy").read_bytes() == before
