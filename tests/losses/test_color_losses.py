"""Losses that judge colours: against float64 NumPy versions of the published definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from traiNNer.losses import build_loss
from traiNNer.losses.base import total
from traiNNer.utils.cie import lightness, oklab_chroma
from traiNNer.utils.hsluv import rgb_to_hsluv

M = np.array(
    [
        [3.240969941904521, -1.537383177570093, -0.498610760293],
        [-0.96924363628087, 1.87596750150772, 0.041555057407175],
        [0.055630079696993, -0.20397695888897, 1.056971514242878],
    ]
)
KAPPA, EPSILON = 903.2962962, 0.0088564516


def images(*size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    output, target = torch.rand(2, *(size or (2, 3, 33, 38)), generator=generator, dtype=torch.float64)
    return output, target


def linear(image: np.ndarray) -> np.ndarray:
    return np.where(image <= 0.04045, image / 12.92, ((np.maximum(image, 0) + 0.055) / 1.055) ** 2.4)


def l_star(y: np.ndarray) -> np.ndarray:
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27) / 100


def lightness_of(image: np.ndarray) -> np.ndarray:
    return l_star(np.tensordot([0.2126, 0.7152, 0.0722], linear(image), axes=(0, 1)))


def chroma_of(image: np.ndarray) -> np.ndarray:
    """Oklab by way of its 3 x 3 matrices on columns of pixels."""
    to_lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    pixels = np.moveaxis(linear(image), 1, -1)
    return np.moveaxis(np.cbrt(pixels @ to_lms.T) @ to_lab.T, -1, 1)[:, 1:]


def hsluv_of(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue in degrees, saturation and lightness in percent: by lines round the gamut and rays that meet them."""
    xyz = np.linalg.inv(M) @ linear(image).transpose(1, 0, 2, 3).reshape(3, -1)
    x, y, z = xyz
    light = np.where(y > EPSILON, 116 * np.cbrt(y) - 16, y * KAPPA)
    total = x + 15 * y + 3 * z
    u, v = 13 * light * (4 * x / total - 0.19783000664283), 13 * light * (9 * y / total - 0.46831999493879)
    hue = np.arctan2(v, u)
    cube = (light + 16) ** 3 / 1560896
    scale = np.where(cube > EPSILON, cube, light / KAPPA)
    reach = np.full_like(light, np.inf)
    for m1, m2, m3 in M:
        for bound in (0, 1):
            top1 = (284517 * m1 - 94839 * m3) * scale
            top2 = (838422 * m3 + 769860 * m2 + 731718 * m1) * light * scale - 769860 * bound * light
            bottom = (632260 * m3 - 126452 * m2) * scale + 126452 * bound
            length = (top2 / bottom) / (np.sin(hue) - top1 / bottom * np.cos(hue))
            reach = np.where((length >= 0) & (length < reach), length, reach)
    parts = np.degrees(hue) % 360, np.hypot(u, v) / reach * 100, light
    shape = (image.shape[0], *image.shape[2:])
    return tuple(part.reshape(shape) for part in parts)  # type: ignore[return-value]


def hsluv_loss_of(output: np.ndarray, target: np.ndarray, weights: tuple[float, float, float]) -> float:
    (h1, s1, l1), (h2, s2, l2) = hsluv_of(output), hsluv_of(target)
    s1, s2, l1, l2 = s1 / 100, s2 / 100, l1 / 100, l2 / 100
    turn = np.abs(h1 - h2) / 360
    hue = 2 * np.minimum(turn, 1 - turn)
    hue = np.where((s1 < 0.1) & (s2 < 0.1), 0, hue)
    hue = np.where((s1 < 0.1) != (s2 < 0.1), np.maximum(s1, s2), hue)
    hue = np.where((l1 < 0.1) & (l2 < 0.1) | (l1 > 0.9) & (l2 > 0.9), 0, hue)
    matter = np.minimum(l1, 1 - l1) + np.minimum(l2, 1 - l2)
    parts = hue.mean(), (np.abs(s1 - s2) * matter).mean(), np.abs(l1 - l2).mean()
    return float(np.dot(weights, parts))


def value(name: str, output: torch.Tensor, target: torch.Tensor, **options: object) -> float:
    return float(total(build_loss({"type": name, **options})(output, target)))


def test_lumaloss_is_the_difference_of_cie_lightness() -> None:
    output, target = images()
    output[0] *= 0.05  # into the linear parts of sRGB and of L*
    expected = np.abs(lightness_of(output.numpy()) - lightness_of(target.numpy())).mean()
    assert value("lumaloss", output, target) == pytest.approx(expected, rel=1e-9)


def test_lightness_of_known_greys() -> None:
    greys = torch.tensor([0.0, 119 / 255, 1.0], dtype=torch.float64).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    assert lightness(greys).flatten().tolist() == pytest.approx([0, 0.5003, 1], abs=1e-4)


def test_colorloss_is_the_difference_of_mean_cb_and_cr() -> None:
    output, target = images(2, 3, 32, 24)
    matrix = np.array([[-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255

    def chroma(image: np.ndarray) -> np.ndarray:
        full = np.einsum("dc,bchw->bdhw", matrix, image) + 128 / 255
        return full.reshape(2, 2, 8, 4, 6, 4).mean(axis=(3, 5))

    expected = np.abs(chroma(output.numpy()) - chroma(target.numpy())).mean()
    assert value("colorloss", output, target) == pytest.approx(expected, rel=1e-9)
    assert value("colorloss", output + 0.25, output) == pytest.approx(0, abs=1e-12)  # grey is no colour
    tinted = output.clone()
    tinted[:, 0, :, 22:] += 1  # of 4 blocks of 7 px, the last has 3 columns
    expected = (37.797 + 112) / 255 / 2 * (2 / 3) / 4
    assert value("colorloss", tinted, output, scale=7) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [  # hue, saturation and lightness that the reference implementation (hsluv 5.0.5 on PyPI) gives
        ((1, 0, 0), (12.177050630061776, 100, 53.23711559542933)),
        ((0, 1, 0), (127.71501294924047, 100, 87.73551910965973)),
        ((0, 0, 1), (265.8743202181779, 100, 32.30087290398002)),
        ((0.5, 0.25, 0.75), (280.68761351717023, 72.18995278863464, 41.15574443112412)),
        ((1 / 255, 0, 0), (12.177050630061776, 100, 0.058300256914765085)),
        ((1, 1, 254 / 255), (85.87432021781939, 100, 99.97515675163538)),
    ],
)
def test_hsluv_of_known_colours(rgb: tuple[float, ...], expected: tuple[float, ...]) -> None:
    found = rgb_to_hsluv(torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1))
    assert float(found.hue()) == pytest.approx(expected[0], abs=1e-4)
    assert float(found.saturation * 100) == pytest.approx(expected[1], abs=1e-6)
    assert float(found.lightness * 100) == pytest.approx(expected[2], abs=1e-5)


def test_colours_fade_to_grey_beyond_the_darkest_and_the_whitest_of_8_bits() -> None:
    light = 1 - 0.5e-4 / 0.072192315360733
    whitest = 1.055 * light ** (1 / 2.4) - 0.055
    darkest = 0.5e-3 / (0.18048078840183 + 15 * 0.072192315360733 + 3 * 0.95053215224966) * 12.92
    colours = torch.tensor([[1, 1, whitest], [0, 0, darkest], [1, 1, 1], [0, 0, 0]], dtype=torch.float64)
    found = rgb_to_hsluv(colours.T.reshape(1, 3, 1, 4)).saturation.flatten()
    assert found.tolist() == pytest.approx([0.5, 0.5, 0, 0], abs=1e-4)


def test_hsluv_is_the_one_of_lines_and_rays() -> None:
    image, _ = images()
    found = rgb_to_hsluv(image)
    hue, saturation, light = hsluv_of(image.numpy())
    turn = np.abs(found.hue()[:, 0].numpy() - hue) % 360
    assert np.minimum(turn, 360 - turn).max() < 1e-3
    np.testing.assert_allclose(found.saturation[:, 0].numpy() * 100, saturation, rtol=1e-5)
    np.testing.assert_allclose(found.lightness[:, 0].numpy() * 100, light, rtol=1e-5)
    single = rgb_to_hsluv(image.float())
    assert (single.saturation - found.saturation).abs().max() < 1e-5


@pytest.mark.parametrize("weights", [(1 / 3, 1 / 3, 1 / 3), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_hsluvloss_is_its_three_parts(weights: tuple[float, float, float]) -> None:
    output, target = images()
    for image, corner in ((output, 0.02), (target, 0.03)):  # greys, and near blacks and whites, in both and in one
        image[0, :, :8] = image[0, :1, :8] + 1e-3 * image[0, :, :8]
        image[0, :, 4:16] *= corner
        image[1, :, :8] = 1 - corner * image[1, :, :8]
    names = ("hue_weight", "saturation_weight", "lightness_weight")
    expected = hsluv_loss_of(output.numpy(), target.numpy(), weights)
    parts = build_loss({"type": "hsluvloss"})(output, target)
    assert list(parts) == ["hue", "saturation", "lightness"]
    assert value("hsluvloss", output, target, **dict(zip(names, weights, strict=True))) == pytest.approx(
        expected, rel=1e-5
    )


def test_hsluvloss_of_blurred_and_reduced_images_sees_no_fine_noise() -> None:
    output, target = images(1, 3, 48, 48)
    sharp = value("hsluvloss", output, target)
    assert value("hsluvloss", output, target, downscale_factor=4) < 0.8 * sharp
    assert value("hsluvloss", output, target, blur_strength=3.0) < 0.6 * sharp


@pytest.mark.parametrize("name", ["hsluvloss", "lumaloss", "consistencyloss"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 1 / 255, 0.5, 1.0, -0.2, 1.2])
def test_flat_greys_have_finite_gradients(name: str, dtype: torch.dtype, level: float) -> None:
    output = torch.full((1, 3, 32, 32), level, dtype=dtype, requires_grad=True)
    for target in (images(1, 3, 32, 32)[1].to(dtype), torch.full_like(output, 0.4)):
        (gradient,) = torch.autograd.grad(total(build_loss({"type": name})(output, target)), output)
        assert torch.isfinite(gradient).all()
        assert (gradient != 0).all()
        assert gradient.abs().max() < 1


def test_oklab_chroma_is_the_published_one() -> None:
    image, _ = images()
    np.testing.assert_allclose(oklab_chroma(image).numpy(), chroma_of(image.numpy()), atol=1e-6)
    grey = torch.linspace(0, 1, 11, dtype=torch.float64).view(1, 1, 1, 11).expand(1, 3, 1, 11)
    assert oklab_chroma(grey).abs().max() < 1e-6


def test_oklab_chroma_has_a_bounded_slope_and_no_jump_at_black() -> None:
    dark = torch.tensor([-1e-3, 0, 1e-7, 0.5 / 255, 1 / 255, 1.001 / 255], dtype=torch.float64)
    blue = torch.stack([torch.zeros_like(dark), torch.zeros_like(dark), dark]).view(1, 3, 1, 6).requires_grad_()
    chroma = oklab_chroma(blue)
    (gradient,) = torch.autograd.grad(chroma[:, 1].sum(), blue)
    assert gradient.abs().max() < 20
    assert (chroma[0, 1, 0].diff() < 0).all()  # bluer and bluer
    assert chroma[..., 1].abs().max() < 0.01
    assert (chroma[..., 2] - chroma[..., 1]).abs().max() < 1e-5


def consistency_of(output: np.ndarray, target: np.ndarray, chc_lambda: float, cosim_weight: float) -> float:
    kernel = np.exp(-0.5 * (np.arange(-10, 11) / 3.0) ** 2)
    kernel /= kernel.sum()

    def light(image: np.ndarray) -> np.ndarray:
        return lightness_of(
            correlate1d(correlate1d(image, kernel, axis=2, mode="mirror"), kernel, axis=3, mode="mirror")
        )

    def distance(first: np.ndarray, second: np.ndarray) -> float:
        cosine = (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
        return 1 - cosine.mean()

    total = 0.0
    for ours, theirs in (
        (light(output), 0.9 * light(target)),
        (chroma_of(output) + 0.5, 1.3 * chroma_of(target) + 0.5),
    ):
        values = np.sqrt((ours - theirs) ** 2 + 1e-12) + chc_lambda * distance(ours, theirs)
        total += np.clip(values, 1 / 255, 254 / 255).mean() + cosim_weight * distance(ours, theirs)
    return float(total)


@pytest.mark.parametrize(("chc_lambda", "cosim_weight"), [(0.012, 0.5), (0.0, 0.0), (0.3, 0.0), (0.0, 2.0)])
def test_consistencyloss_is_its_definition(chc_lambda: float, cosim_weight: float) -> None:
    output, target = images()
    options = {"chc_lambda": chc_lambda, "cosim_weight": cosim_weight, "saturation": 1.3}
    expected = consistency_of(output.numpy(), target.numpy(), chc_lambda, cosim_weight)
    assert value("consistencyloss", output, target, **options) == pytest.approx(expected, rel=1e-5)
    assert build_loss({"type": "consistencyloss", **options}).batch_coupled == (chc_lambda > 0)


def test_consistencyloss_is_smallest_where_it_says() -> None:
    target = images()[1]
    loss = build_loss({"type": "consistencyloss", "brightness": 1.0})
    assert float(loss(target, target)) == pytest.approx(loss.minimum, abs=1e-6)
    darkened = build_loss({"type": "consistencyloss", "criterion": "l1", "cosim": False, "blur": False})
    assert darkened.minimum is None
    darker, same = (target * factor for factor in (0.9, 1.0))
    assert darkened(darker, target) < darkened(same, target)
