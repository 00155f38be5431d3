"""The synthetic turbulence: no divergence, the asked-for spectrum, and the same files for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scripts.generate_turbulence import averaged, cut_off, energy_spectrum, main, turbulence, wavenumbers


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


def test_lq_is_the_mean_or_the_low_wavenumbers() -> None:
    field = turbulence(np.random.default_rng(2), 32)
    assert averaged(field, 2)[1, 3, 5] == pytest.approx(field[1, 6:8, 10:12].mean())
    smooth = np.cos(2 * np.pi * 3 * np.arange(32) / 32) * np.ones((2, 32, 1))
    rough = np.cos(2 * np.pi * 11 * np.arange(32) / 32) * np.ones((2, 32, 1))
    np.testing.assert_allclose(cut_off(smooth + rough, 2), smooth[:, ::2, ::2], atol=1e-12)


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
