"""Relative error of the logarithm of the energy in wavelet bands."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.spectra import FieldLoss, Floor
from traiNNer.utils.registry import LOSSES
from traiNNer.utils.relative_errors import ChannelMode, Quantization, log_relative_error, planes

Wavelet = Literal["haar", "db2", "db4"]

_ROOT = math.sqrt(3)
_LOWPASS: dict[Wavelet, tuple[float, ...]] = {
    "haar": (1 / math.sqrt(2),) * 2,
    "db2": tuple(tap / (4 * math.sqrt(2)) for tap in (1 + _ROOT, 3 + _ROOT, 3 - _ROOT, 1 - _ROOT)),
    "db4": (
        0.23037781330885523,
        0.7148465705525415,
        0.6308807679295904,
        -0.02798376941698385,
        -0.18703481171888114,
        0.030841381835986965,
        0.032883011666982945,
        -0.010597401784997278,
    ),
}
"""Scaling filters of Daubechies, "Ten Lectures on Wavelets", 1992, table 6.1, with 1, 2 and 4 vanishing moments."""


@lru_cache(maxsize=8)
def _filters(wavelet: Wavelet, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(4, 1, taps, taps): low and high pass along y times those along x, kept on the device."""
    with torch.inference_mode(mode=False):  # what is made there cannot be used in training later
        low = torch.tensor(_LOWPASS[wavelet], dtype=dtype)
        signs = torch.ones_like(low)
        signs[1::2] = -1
        pair = torch.stack([low, low.flip(0) * signs])
        return torch.einsum("ay,bx->abyx", pair, pair).flatten(0, 1)[:, None].to(device)


def analysis(image: Tensor, wavelet: Wavelet) -> tuple[Tensor, Tensor]:
    """One level of the orthonormal periodic transform.

    Args:
        image: (N, 1, H, W); the last row or column is repeated where a side is odd.
        wavelet: whose filters.

    Returns:
        The approximation (N, 1, H / 2, W / 2) and the details (N, 3, H / 2, W / 2): along x, along y, along both.
    """
    taps, filters = len(_LOWPASS[wavelet]), _filters(wavelet, image.device, image.dtype)
    for axis in (-2, -1):
        if image.shape[axis] % 2:
            image = torch.cat([image, image.narrow(axis, -1, 1)], dim=axis)
        times, rest = divmod(taps - 2, image.shape[axis])
        image = torch.cat([image] * (1 + times) + [image.narrow(axis, 0, rest)], dim=axis)
    bands = F.conv2d(image, filters, stride=2)
    return bands[:, :1], bands[:, 1:]


def band_energies(image: Tensor, levels: int, wavelet: Wavelet) -> tuple[Tensor, Tensor]:
    """Sum of squares of each band of details.

    Args:
        image: (..., H, W), in float32 or float64.
        levels: how often the approximation is split again.
        wavelet: whose filters.

    Returns:
        (..., 3 `levels`) from fine to coarse, and how many coefficients a band has, (3 `levels`,).
    """
    lead, energies, counts = image.shape[:-2], [], []
    rest = image - image.detach().mean(dim=(-2, -1), keepdim=True)  # no band holds it; float32 resolves the rest better
    rest = rest.reshape(-1, 1, *image.shape[-2:])
    for _ in range(levels):
        rest, details = analysis(rest, wavelet)
        energies.append(details.square().sum(dim=(-2, -1)))
        counts.append(details.new_full((3,), details.shape[-2:].numel()))  # new_tensor would be a copy from the host
    return torch.cat(energies, dim=1).reshape(*lead, -1), torch.cat(counts)


@LOSSES.register("waveletloss")
class WaveletLoss(FieldLoss):
    """mean((log E_output - log E_target)^2) / mean((log E_target)^2), E the energies in bands of the wavelet transform.

    A band is one of the three kinds of details (along x, along y, both) of one level; level l has structures of about
    2^l px. The logarithms are of E + phi as in `spectrumerrorloss`, 10 is added to the denominator, and `quantization`
    assumes 8-bit images in [0, 1] in the same way: set it to 0 for other fields. Compared to its bins these are few and
    wide, and they tell directions apart. The gradient is at most 50 times L1's for 8-bit images of up to 96 px
    down to a contrast of 0.01 with the default floor, and 67 times at 192 px.

    Shapes: `output` and `target` (B, C, H, W) or (B, T, C, H, W), any C, at least 4 px a side; of `levels` as many are
    used as leave 2 px. Range: [0, inf), 0 where all energies are equal.
    Reference: Mallat, "A theory for multiresolution signal decomposition", IEEE TPAMI 1989 (the transform); Daubechies,
    "Ten Lectures on Wavelets", 1992 (the filters); the error is that of `spectrumerrorloss`.

    ```yaml
    - type: waveletloss
      loss_weight: 0.1
      wavelet: db2
      # quantization: 0  # fields: their values are not levels of 8 bits in [0, 1]
    ```
    """

    kind = "frequency"

    def __init__(
        self,
        *,
        levels: Annotated[int, Field(ge=1, le=8, description="of the transform; fewer are used where fewer fit")] = 3,
        wavelet: Annotated[Wavelet, Field(description="filters of 2, 4 or 8 taps")] = "haar",
        channel_mode: ChannelMode = "mean",
        floor: Floor = 0.25,
        quantization: Quantization = 1 / 255,
    ) -> None:
        super().__init__("waveletloss")
        self.levels, self.floor = levels, floor
        self.channel_mode: ChannelMode = channel_mode
        self.wavelet: Wavelet = wavelet
        self.quantization = quantization

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        self.check(output, target)
        levels = min(self.levels, min(output.shape[-2:]).bit_length() - 2)
        averaged = output.shape[-3] if self.channel_mode == "mean" else 1
        with torch.autocast(output.device.type, enabled=False):
            ours, count = band_energies(planes(output, self.channel_mode), levels, self.wavelet)
            theirs, _ = band_energies(planes(target.detach(), self.channel_mode), levels, self.wavelet)
            noise = count * (self.quantization**2 / 12 / averaged)
            return log_relative_error(ours, theirs, floor=self.floor, noise=noise)
