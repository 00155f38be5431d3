"""The generated turbulence: where LQ lies in GT, and what the script refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.generate_turbulence import averaged, cut_off, energy_spectrum, interpolated, main, turbulence
from traiNNer.validation import bicubic

SIZE = 32


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
