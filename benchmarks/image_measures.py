"""The measures of images on scikit-image's photographs: reference values, four versions, scores, multipliers, time.

Prints the tables of docs/data-preparation.md, and the constants of `image_measures.REFERENCE`.

    python benchmarks/image_measures.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import skimage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from traiNNer.data.complexity import complexity
from traiNNer.data.measures import Measures, measure_files
from traiNNer.training_automations.base import LossFacts
from traiNNer.training_automations.calibration import calibrate
from traiNNer.utils.image_measures import ImageMeasures, measure_image
from traiNNer.utils.images import read_image, write_image

PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
SEEDS = 16
SIGMAS = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
LOSSES = {
    "l1loss": LossFacts(kind="pixel"),
    "mssimloss": LossFacts(kind="structure"),
    "perceptualloss": LossFacts(kind="perceptual"),
    "ganloss": LossFacts(kind="adversarial"),
}


def photograph(name: str) -> np.ndarray:
    """One of scikit-image's bundled photographs."""
    return read_image(Path(skimage.__file__).parent / "data" / name)


def versions(image: np.ndarray) -> dict[str, np.ndarray]:
    """As it is, blurred by 1.5 px, with noise of 12 levels in R, G and B, and as JPEG of quality 30."""
    noise = np.random.default_rng(0).normal(0, 12, image.shape)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 30])
    return {
        "as they are": image,
        "blurred": np.asarray(cv2.GaussianBlur(image, (0, 0), 1.5)),
        "noisy": np.clip(np.rint(image + noise), 0, 255).astype(np.uint8),
        "JPEG 30": np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1],
    }


def measured(folder: Path, seed: int = 0) -> Measures:
    """Measure the photographs of a folder."""
    found = measure_files([str(path) for path in sorted(folder.iterdir())], seed=seed)
    if found is None:
        raise ValueError(f"{folder} has no images that can be measured")
    return found


def row(name: str, values: list[str]) -> None:
    """Print a line of a table."""
    print("| " + " | ".join([name, *values]) + " |")


def reference(folder: Path) -> None:
    """Print the mean and the spread of the medians over seeds."""
    started = time.perf_counter()
    table = np.array([list(measured(folder, seed).medians.by_name().values()) for seed in range(SEEDS)])
    seconds = (time.perf_counter() - started) / SEEDS
    for name, values in zip(ImageMeasures.names(), table.T, strict=True):
        furthest = np.abs(values / values.mean() - 1).max()
        row(name, [f"{values.mean():.4g}", f"{100 * furthest:.1f} %"])
    print(f"{seconds:.2f} s for 512 crops\n")


def four_versions(folders: dict[str, Path]) -> None:
    """Print measures and multipliers of the versions."""
    medians = {version: measured(folder).medians for version, folder in folders.items()}
    for version, each in medians.items():
        row(version, [f"{value:.4g}" for value in each.by_name().values()])
    print()
    for version, each in medians.items():
        row(version, [f"{factor:.2f}" for factor in calibrate(each.by_name(), LOSSES).values()])
    print()


def scores() -> None:
    """Print the scores of whole photographs, of their versions, and blurred more and more."""
    for name in PHOTOS:
        image = photograph(name)
        soft = [complexity(measure_image(np.asarray(cv2.GaussianBlur(image, (0, 0), sigma)))) for sigma in SIGMAS]
        others = {version: complexity(measure_image(each)) for version, each in versions(image).items()}
        found = [others["as they are"], *soft, others["noisy"], others["JPEG 30"]]
        row(Path(name).stem, [f"{score:.2f}" for score in found])


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        folders: dict[str, Path] = {}
        for name in PHOTOS:
            for version, image in versions(photograph(name)).items():
                folders[version] = Path(folder) / version
                write_image(folders[version] / f"{Path(name).stem}.png", image)
        reference(folders["as they are"])
        four_versions(folders)
    scores()
    return 0


if __name__ == "__main__":
    sys.exit(main())
