"""Fields from NumPy files: what is read, how it is turned and normalized, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from traiNNer.data import TrainLoader, ValidationLoader, build_dataset, check_datasets, paired_array_dataset
from traiNNer.data.normalization import identity, normalized, physical, statistics
from traiNNer.data.order import sample_generator
from traiNNer.data.transforms import FieldKinds, Orientation
from traiNNer.types import Normalization
from traiNNer.utils.arrays import array_header, read_array
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.images import ImageError

Make = Callable[..., Any]
RNG = np.random.default_rng(3)
COUNT = 5


def averaged(field: np.ndarray) -> np.ndarray:
    height, width = (size // 2 for size in field.shape[-2:])
    return field[..., : 2 * height, : 2 * width].reshape(*field.shape[:-2], height, 2, width, 2).mean((-3, -1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("gt", "lq"):
        (tmp_path / kind).mkdir()
    for number in range(COUNT):
        field = RNG.normal(size=(2, 16, 20)) * [[[2.0]], [[5.0]]] + 3
        np.save(tmp_path / "gt" / f"{number}.npy", field)
        np.save(tmp_path / "lq" / f"{number}.npy", averaged(field))
    return tmp_path


@pytest.fixture
def make(folder: Path) -> Make:
    def build(**options: Any) -> Any:
        complete = {
            "type": "PairedArrayDataset",
            "name": "tiny",
            "scale": 2,
            "dataroot_gt": str(folder / "gt"),
            "dataroot_lq": str(folder / "lq"),
            "lq_size": 4,
        }
        return build_dataset({key: value for key, value in (complete | options).items() if value is not None})

    return build


def refusal(dataset: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check_datasets({"train": dataset})
    return str(caught.value)


def test_a_crop_lies_at_the_same_place_of_both_and_is_a_function_of_the_generator(make: Make, folder: Path) -> None:
    dataset = make()
    check_datasets({"train": dataset})
    seen = set()
    for place in range(20):
        index = place % COUNT
        sample = dataset.sample(index, sample_generator(0, 0, place))
        gt, lq = sample["gt"].numpy(), sample["lq"].numpy()
        assert (gt.shape, lq.shape, gt.dtype) == ((2, 8, 8), (2, 4, 4), np.float32)
        np.testing.assert_allclose(averaged(gt), lq, atol=1e-5)  # flips off: the crop of the mean is its mean
        whole = np.load(folder / "gt" / f"{index}.npy")
        corners = [
            (y, x) for y in range(0, 9, 2) for x in range(0, 13, 2) if np.allclose(whole[:, y : y + 8, x : x + 8], gt)
        ]
        assert len(corners) == 1
        seen.add(corners[0])
        again = dataset.sample(index, sample_generator(0, 0, place))
        assert torch.equal(again["gt"], sample["gt"])
    assert len(seen) > 8


def test_lq_is_made_by_the_mean_of_squares_and_what_exceeds_is_left_out(make: Make, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    field = RNG.normal(size=(3, 15, 11)).astype(np.float32)
    np.save(tmp_path / "odd" / "a.npy", field)
    sample = make(dataroot_gt=str(tmp_path / "odd"), dataroot_lq=None, phase="val").sample(0, sample_generator(0, 0, 0))
    np.testing.assert_allclose(sample["lq"].numpy(), averaged(field), atol=1e-6)
    assert np.array_equal(sample["gt"].numpy(), field[:, :14, :10])


@pytest.mark.parametrize("shape", [(6, 8, 8), (6, 2, 8, 8)])
@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_every_time_is_a_sample(make: Make, tmp_path: Path, shape: tuple[int, ...], ending: str) -> None:
    (tmp_path / "flow").mkdir()
    flow = RNG.normal(size=shape).astype(np.float32)
    if ending == ".npy":
        np.save(tmp_path / "flow" / "a.npy", flow)
    else:
        np.savez_compressed(tmp_path / "flow" / "a.npz", other=flow * 2, velocity=flow)
    key = "velocity" if ending == ".npz" else None
    dataset = make(dataroot_gt=str(tmp_path / "flow"), dataroot_lq=None, time_axis=True, key=key, phase="val")
    check_datasets({"val": dataset})
    assert len(dataset) == 6
    sample = dataset.sample(4, sample_generator(0, 0, 0))
    assert np.array_equal(sample["gt"].numpy(), flow[4].reshape(-1, 8, 8))
    assert sample["gt_path"] == f"{tmp_path}/flow/a{ending}[4]"
    assert [sample["lq_path"] for sample in ValidationLoader(dataset)] == dataset.inputs()


def test_a_large_file_is_not_read_for_a_crop(make: Make, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    file = np.lib.format.open_memmap(
        tmp_path / "large" / "a.npy", mode="w+", dtype=np.float32, shape=(100_000, 2, 512, 512)
    )  # 200 GB on paper, sparse on disk
    del file
    dataset = make(dataroot_gt=str(tmp_path / "large"), dataroot_lq=None, time_axis=True)
    assert len(dataset) == 100_000
    assert dataset.sample(99_999, sample_generator(0, 0, 0))["gt"].abs().sum() == 0


def test_statistics_are_those_of_all_pixels_and_undone_exactly() -> None:
    frames = [RNG.normal(size=(2, 5 + number, 7)).astype(np.float32) * 3 + 1000 for number in range(4)]
    found = statistics(frames, 2)
    pixels = np.concatenate([frame.reshape(2, -1) for frame in frames], axis=1).astype(np.float64)
    np.testing.assert_allclose(found.mean, pixels.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(1), rtol=1e-9)
    back = physical(torch.from_numpy(normalized(frames[0], found)), found).numpy()
    np.testing.assert_allclose(back, frames[0], rtol=3e-7)
    assert statistics([np.full((1, 4, 4), 7.0)], 1).std == (1.0,)


def test_the_training_set_is_normalized_by_itself_or_by_what_is_known(make: Make, folder: Path) -> None:
    dataset = make(normalization="training")
    dataset.normalize_by(None)
    pixels = np.stack([np.load(folder / "gt" / f"{number}.npy") for number in range(COUNT)])
    np.testing.assert_allclose(dataset.normalization.mean, pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(dataset.normalization.std, pixels.std((0, 2, 3)), rtol=1e-6)
    generator = sample_generator(0, 0, 0)
    plain, scaled = make().sample(0, generator)["gt"], dataset.sample(0, sample_generator(0, 0, 0))["gt"]
    assert torch.allclose(physical(scaled, dataset.normalization), plain, atol=1e-5)
    saved = Normalization(mean=(1.0, 2.0), std=(3.0, 4.0))
    dataset.normalize_by(saved)
    assert dataset.normalization == saved
    other = make(phase="val", normalization={"mean": [0.0, 0.0], "std": [1.0, 2.0]})
    with pytest.raises(ConfigError, match="normalization: found another than the network was trained with"):
        other.normalize_by(saved)
    with pytest.raises(ConfigError, match="found numbers for 3 channels, but the data has 2"):
        make().normalize_by(None) or make(phase="val").normalize_by(identity(3))
    with pytest.raises(ConfigError, match="std above 0"):
        make(normalization={"mean": [0.0], "std": [0.0]})


def rotation_invariants(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divergence and curl by central differences on a periodic grid."""
    across = (np.roll(flow, -1, 2) - np.roll(flow, 1, 2)) / 2
    down = (np.roll(flow, -1, 1) - np.roll(flow, 1, 1)) / 2
    return across[0] + down[1], across[1] - down[0]


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("vflip", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
def test_a_turned_vector_field_is_the_field_of_the_turned_world(hflip: bool, vflip: bool, transpose: bool) -> None:
    """Its divergence is the turned divergence, its curl the turned curl, with the other sign when mirrored."""
    flow = RNG.normal(size=(2, 8, 8))
    divergence, curl = rotation_invariants(flow)
    field = np.concatenate([flow, divergence[None], curl[None]])
    turned = FieldKinds((0, 1), (3,)).orient(field, Orientation(hflip, vflip, transpose))
    found = rotation_invariants(turned[:2])
    np.testing.assert_allclose(found[0], turned[2], atol=1e-12)
    np.testing.assert_allclose(found[1], turned[3], atol=1e-12)
    scalars = FieldKinds().orient(field[2:3], Orientation(hflip, vflip, transpose))
    assert np.array_equal(scalars[0], turned[2])


def test_training_turns_vectors(make: Make) -> None:
    plain = make(lq_size=8, use_hflip=True, use_rot=True)
    vectors = make(lq_size=8, use_hflip=True, use_rot=True, vector_channels=[0, 1])
    differ = 0
    for place in range(12):
        one, other = (each.sample(0, sample_generator(0, 0, place))["gt"] for each in (plain, vectors))
        differ += not torch.equal(one, other)
        assert torch.allclose(one.square().sum(0), other.square().sum(0), atol=1e-4)
    assert differ > 5


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_go_on_where_another_loader_stopped(make: Make, workers: int) -> None:
    def loader(workers: int = 0) -> TrainLoader:
        dataset = make(use_hflip=True, use_rot=True, normalization="training")
        dataset.normalize_by(None)
        return TrainLoader(dataset, batch_size=2, seed=5, num_workers=workers)

    straight = loader()
    expected = [straight.next_batches()[0]["gt"] for _ in range(6)]
    first, second = loader(), loader(workers)
    for _ in range(3):
        first.next_batches()
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(second.next_batches()[0]["gt"], batch) for batch in expected[3:])
    second.close()


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((2, 16, 20), np.complex64), "1.npy: holds complex numbers (complex64); accepted: real numbers"),
        (np.zeros((2, 16, 20), bool), "1.npy: holds true and false; accepted"),
        (np.array([{}], object), "1.npy: holds Python objects or is no array file"),
        (np.zeros((3, 16, 20)), "1.npy: is 2 channels of 10 x 8 px, but its GT is 3 channels of 20 x 16 px"),
        (
            np.zeros((2, 14, 20)),
            "1.npy: is 2 channels of 10 x 8 px, but its GT is 2 channels of 20 x 14 px",
        ),
        (np.zeros((1, 2, 16, 20)), "has the shape (1, 2, 16, 20); accepted: (H, W) or (C, H, W); with time_axis: true"),
    ],
)
def test_a_file_that_is_no_field_is_named(make: Make, folder: Path, array: np.ndarray, text: str) -> None:
    np.save(folder / "gt" / "1.npy", array, allow_pickle=True)
    assert text in refusal(make())


def test_other_mistakes_with_files_are_named(make: Make, folder: Path) -> None:
    (folder / "gt" / "0.npy").write_bytes((folder / "gt" / "0.npy").read_bytes()[:400])
    (folder / "gt" / "1.npy").write_bytes(b"text")
    np.save(folder / "gt" / "2.npy", np.zeros((1, 16, 20)))
    np.save(folder / "lq" / "2.npy", np.zeros((1, 8, 10)))
    (folder / "lq" / "3.npy").unlink()
    np.savez(folder / "gt" / "5.npz", a=np.zeros((8, 8)), b=np.zeros((8, 8)))
    np.save(folder / "lq" / "5.npy", np.zeros((4, 4)))
    text = refusal(make(lq_size=9))
    for line in (
        "gt/0.npy: is cut short",
        "gt/1.npy: holds Python objects or is no array file",
        "gt/3.npy: has no LQ partner",
        "lq/4.npy: is 2 channels of 10 x 8 px, smaller than the crop of 9 px for LQ",
        "gt/5.npz: holds 2 arrays (a, b); accepted: one, or `key` with the name of one",
    ):
        assert line in text
    assert "lq/2.npy" in text


def test_channels_of_options_must_be_there(make: Make) -> None:
    assert "name the channels [2], but the data has 2" in refusal(make(vector_channels=[1, 2]))
    assert "name a channel twice" in refusal(make(vector_channels=[1, 1]))


def test_numbers_that_are_none_are_found(make: Make, folder: Path) -> None:
    field = np.load(folder / "gt" / "3.npy")
    field[1, 4, 4] = np.nan
    np.save(folder / "gt" / "3.npy", field)
    with pytest.raises(ConfigError, match=r"gt/3.npy: holds NaN or infinity"):
        make(normalization="training").normalize_by(None)
    assert "gt/3.npy: holds NaN or infinity" in "".join(make(phase="val").check({}))
    batches = TrainLoader(make(lq_size=8), batch_size=COUNT, seed=0).next_batches()
    assert [fault for batch in batches for fault in batch["fault"]] == [
        f"{folder}/gt/3.npy: holds NaN or infinity; accepted: finite numbers"
    ]


def test_numbers_beyond_float32_are_found_without_a_warning(
    make: Make, folder: Path, recwarn: pytest.WarningsRecorder
) -> None:
    np.save(folder / "gt" / "3.npy", np.load(folder / "gt" / "3.npy") * 1e39)
    with pytest.raises(ConfigError, match=r"gt/3.npy: holds numbers beyond float32; accepted: finite numbers"):
        make(normalization="training").normalize_by(None)
    assert not recwarn.list


def test_a_large_mean_takes_no_digits_away(make: Make, folder: Path) -> None:
    fields = [RNG.normal(size=(2, 16, 20)) for _ in range(COUNT)]
    for number, field in enumerate(fields):
        np.save(folder / "gt" / f"{number}.npy", field + 1e9 + 7)
    dataset = make(dataroot_lq=None, phase="val")
    dataset.normalize_by(Normalization(mean=(1e9 + 7, 1e9 + 7), std=(2.0, 2.0)))
    sample = dataset.sample(1, sample_generator(0, 0, 0))
    np.testing.assert_allclose(sample["gt"].numpy(), fields[1] / 2, atol=1e-6)
    np.testing.assert_allclose(sample["lq"].numpy(), averaged(fields[1]) / 2, atol=1e-6)
    training = make(dataroot_lq=None, normalization="training")
    training.normalize_by(None)
    np.testing.assert_allclose(training.normalization.std, np.stack(fields).std((0, 2, 3)), rtol=1e-6)


def test_a_deviation_that_float32_does_not_hold_is_none(make: Make) -> None:
    assert statistics([np.array([[[0.0, 1e-60]]])], 1).std == (1.0,)
    with pytest.raises(ConfigError, match="std above 0 in float32"):
        make(normalization={"mean": [0.0], "std": [1e-60]})


def test_a_npz_of_many_times_is_read_once_before_the_start(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flow").mkdir()
    np.savez(tmp_path / "flow" / "a.npz", RNG.normal(size=(6, 8, 8)))
    dataset = make(dataroot_gt=str(tmp_path / "flow"), dataroot_lq=None, time_axis=True, normalization="training")
    read, count = paired_array_dataset.read_array, []
    monkeypatch.setattr(paired_array_dataset, "read_array", lambda *given: (count.append(1), read(*given))[1])
    dataset.normalize_by(None)
    assert len(count) == 1
    (tmp_path / "small").mkdir()
    np.savez(tmp_path / "small" / "a.npz", RNG.normal(size=(6, 4, 4)))
    folders = {"dataroot_gt": str(tmp_path / "flow"), "dataroot_lq": str(tmp_path / "small")}
    assert make(**folders, time_axis=True, phase="val").check({}) == []
    assert len(count) == 1 + 2


def test_damaged_files_are_messages(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    np.savez_compressed(tmp_path / "packed.npz", np.zeros((64, 64)))
    content = (tmp_path / "packed.npz").read_bytes()
    np.save(tmp_path / "plain.npy", np.zeros((4, 4)))
    plain = (tmp_path / "plain.npy").read_bytes()
    files = {
        "renamed.npy": content,
        "renamed.npz": plain,
        "empty.npy": b"",
        "empty.npz": b"",
        "token.npy": plain.replace(b"{'descr'", b"{(((((('"),
        "key.npy": plain.replace(b"'shape'", b"'shap_'"),
    }
    for place in range(60):
        whole = bytearray(content if place % 2 else plain)
        for position in rng.integers(0, len(whole), 3):
            whole[position] = rng.integers(256)
        files[f"{place}{'.npz' if place % 2 else '.npy'}"] = bytes(whole)
    packed = bytearray(content)
    start = content.index(b"arr_0.npy") + 40
    packed[start : start + 20] = b"\xff" * 20
    files["stream.npz"] = bytes(packed)
    said = {}
    for name, each in files.items():
        (tmp_path / name).write_bytes(each)
        try:
            array_header(str(tmp_path / name))
            read_array(str(tmp_path / name))
        except ImageError as error:
            said[name] = error.reason
    assert {"renamed.npy", "renamed.npz", "empty.npy", "empty.npz", "token.npy", "key.npy", "stream.npz"} <= set(said)
    assert said["renamed.npy"] == "is a .npz by its content; accepted: the ending .npz"
    assert all("\n" not in reason and not reason.startswith("eOF") for reason in said.values())


def test_a_folder_of_images_is_no_folder_of_fields(make: Make, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no arrays; accepted: .npy, .npz"):
        make(dataroot_gt=str(tmp_path / "empty"))
