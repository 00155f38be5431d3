"""Photographs of scikit-image's wheel, and worse versions of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import skimage

from traiNNer.utils.images import read_image

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
SIGMA = 12.0
"""Of the noise in R, G and B of the noisy version, levels of 255."""


def file_of(name: str) -> Path:
    return Path(skimage.__file__).parent / "data" / name


def photograph(name: str) -> np.ndarray:
    return read_image(file_of(name))


def blurred(image: np.ndarray, sigma: float = 1.5) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def versions(image: np.ndarray) -> dict[str, np.ndarray]:
    """As it is, blurred, noisy, and as JPEG of quality 30."""
    noise = np.random.default_rng(0).normal(0, SIGMA, image.shape)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 30])
    return {
        "as_is": image,
        "blurred": blurred(image),
        "noisy": np.clip(np.rint(image + noise), 0, 255).astype(np.uint8),
        "jpeg": cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1],
    }
