"""Perceptual loss: distances between VGG19's features of two images, and between their Gram matrices."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.base import Loss
from traiNNer.losses.charbonnier_loss import charbonnier
from traiNNer.losses.features import (
    LayerWeight,
    Pretrained,
    TorchvisionFeatures,
    VGGLayer,
    WeightsPath,
    vgg_layers,
    vgg_weights,
)
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import LOSSES

Criterion = Literal["charbonnier", "l1", "l2", "pd", "fd", "pd+l1", "fd+l1"]

_BLOCKS = {"1_2": 0.1, "2_2": 0.1, "3_4": 1.0, "4_4": 1.0, "5_4": 1.0}
_PATCH = 5
"""Height and width of the projections of a spectrum, in frequencies."""


def gram_matrix(features: Tensor) -> Tensor:
    """F F^T / (C H W) with F the features as C rows of H W values, the correlations of the channels.

    Args:
        features: (B, C, H, W).

    Returns:
        (B, C, C).

    Source: Gatys et al., "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016; with the normalization
    of Johnson et al., ECCV 2016.
    """
    rows = features.flatten(2)
    return rows @ rows.mT / rows[0].numel()


def style_distance(output: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of |G(output) - G(target)|^2, the squared Frobenius norm between Gram matrices.

    Args:
        output: features, (B, C, H, W).
        target: features of the same shape.

    Returns:
        A scalar.

    Source: Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016.
    """
    return (gram_matrix(output) - gram_matrix(target)).square().sum(dim=(1, 2)).mean()


def position_distance(output: Tensor, target: Tensor) -> Tensor:
    """Mean over channels of sum_p |cdf(output)_p - cdf(target)_p|: how far activations lie apart, row by row.

    Each channel is divided by its sum; cdf is its cumulative sum over the positions p in row order, so that this is the
    Wasserstein-1 distance between positions.

    Args:
        output: features that are not negative, (B, C, H, W).
        target: features of the same shape.

    Returns:
        A scalar.

    Source: traiNNer-redux's criterion `pd`.
    """
    first, second = (
        (features / (features.sum(dim=(2, 3), keepdim=True) + 1e-14)).flatten(2).cumsum(dim=-1)
        for features in (output, target)
    )
    return (first - second).abs().sum(dim=-1).mean()


def frequency_distance(
    output: Tensor, target: Tensor, projections: Tensor, *, phase_weight: float = 1.0, stride: int = 1
) -> Tensor:
    """SWD(|X|, |Y|) + phase_weight SWD(arg X, arg Y) for the Fourier transforms X, Y of two feature maps.

    SWD is the sliced Wasserstein distance: patches of all channels are projected onto unit vectors, and the projections
    of the two maps are compared in ascending order, by their mean absolute difference. Maps with fewer frequencies than
    the patches take the upper left part of the vectors, made unit vectors again.

    Args:
        output: features, (B, C, H, W).
        target: features of the same shape.
        projections: unit vectors, (N, C, K, K).
        phase_weight: weight of the phases.
        stride: distance of the patches, in frequencies.

    Returns:
        A scalar.

    Source: Ni et al., "Misalignment-Robust Frequency Distribution Loss for Image Transformation", CVPR 2024.
    """
    height, width = output.shape[-2:]
    if min(height, width) < projections.shape[-1]:
        projections = projections[..., :height, :width]
        projections = projections / projections.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    projections = projections.to(output.dtype)

    def sliced(first: Tensor, second: Tensor) -> Tensor:
        ordered = [F.conv2d(part, projections, stride=stride).flatten(2).sort().values for part in (first, second)]
        return (ordered[0] - ordered[1]).abs().mean()

    spectra = [_spectrum(features) for features in (output, target)]
    amplitude = sliced(spectra[0].abs(), spectra[1].abs())
    return amplitude + phase_weight * sliced(spectra[0].angle(), spectra[1].angle())


def _spectrum(features: Tensor) -> Tensor:
    """The Fourier transform of real features (B, C, H, W), with phases that rounding does not change.

    Where a frequency is its own opposite the transform is real; the sign of what rounding leaves there would make its
    phase pi or -pi. The phase of nothing is 0, or its gradient, 1 / amplitude, would overflow.
    """
    spectrum = torch.fft.fft2(features)
    rows, columns = (2 * torch.arange(size, device=features.device) % size == 0 for size in features.shape[-2:])
    spectrum = torch.where(rows[:, None] & columns, spectrum.real.to(spectrum.dtype), spectrum)
    return torch.where(spectrum.abs() < 1e-12, 0, spectrum)


@LOSSES.register("perceptualloss")
class PerceptualLoss(Loss):
    """sum_l w_l (perceptual_weight D(f_l(output), f_l(target)) + style_weight |G(f_l(output)) - G(f_l(target))|^2).

    f_l are layers of VGG19, of ImageNet-normalized images; names are as conv3_4 (before its ReLU), relu3_4, pool3. D is
    the mean of the absolute (l1), squared (l2) or Charbonnier difference, or w_lambda times a distance between two
    distributions, of positions (pd) or of frequencies (fd). `pd+l1` and `fd+l1` mix alpha_l of the distribution's
    distance and 1 - alpha_l of l1. G is the Gram matrix. With style_weight the value has two components, perceptual and
    style.

    Without `layers` and `layer_weights`: 1_2 x 0.1, 2_2 x 0.1, 3_4, 4_4 and 5_4 x 1, of conv for differences, of relu
    for distributions, of both for mixtures.

    Shapes: `output` and `target` (B, 3, H, W) in [0, 1], at least 16 px (32 px for pool5). Range: [0, inf), 0 where
    they are equal. The network never changes: there is no state to save.
    Reference: Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016; before
    the activation as Wang et al., "ESRGAN", ECCVW 2018; fd: Ni et al., CVPR 2024.
    traiNNer-redux: conv1_1 repeats the edge, here zeros as in torchvision; fd's projections differ in every run.

    ```yaml
    - type: perceptualloss
      loss_weight: 1.0
      layer_weights: {conv1_2: 0.1, conv2_2: 0.1, conv3_4: 1.0, conv4_4: 1.0, conv5_4: 1.0}
      criterion: charbonnier
    - type: perceptualloss
      loss_weight: 0.1
      layers: [relu1_2, relu2_2, relu3_4]
      perceptual_weight: 1.0
      style_weight: 0.0
      pretrained: true
    ```
    """

    kind = "perceptual"
    channels = 3

    def __init__(
        self,
        *,
        layers: Annotated[
            tuple[VGGLayer, ...] | None, Field(min_length=1, description="layers of weight 1; instead of layer_weights")
        ] = None,
        layer_weights: Annotated[
            dict[VGGLayer, LayerWeight] | None, Field(min_length=1, description="weights of layers by name")
        ] = None,
        criterion: Annotated[Criterion, Field(description="distance between features")] = "charbonnier",
        perceptual_weight: Annotated[float, Field(ge=0, description="weight of the features' distance")] = 1.0,
        style_weight: Annotated[float, Field(ge=0, description="weight of the Gram matrices' distance")] = 0.0,
        w_lambda: Annotated[float, Field(gt=0, description="factor of pd and fd")] = 0.01,
        alpha: Annotated[
            tuple[Annotated[float, Field(ge=0, le=1)], ...] | None,
            Field(
                description="share of pd or fd in a mixture by layer, from the first; default: 0 for conv, 1 for others"
            ),
        ] = None,
        num_proj_fd: Annotated[int, Field(ge=1, description="projections of fd")] = 256,
        phase_weight_fd: Annotated[float, Field(ge=0, description="weight of the phases in fd")] = 1.0,
        stride_fd: Annotated[int, Field(ge=1, description="distance of fd's patches, in frequencies")] = 1,
        pretrained: Pretrained = True,
        weights_path: WeightsPath = None,
    ) -> None:
        super().__init__()
        if perceptual_weight == style_weight == 0:
            message = "found 0 beside style_weight 0; accepted: one of the two greater than 0"
            raise ConfigError(Problem(key="perceptual_weight", message=message))
        weights = vgg_weights(_layer_weights(layers, layer_weights, criterion), "vgg19")
        self.weights, self.perceptual_weight, self.style_weight = weights, perceptual_weight, style_weight
        self.criterion, self.w_lambda = criterion, w_lambda
        self.shares = _shares(alpha, weights, criterion)
        self.phase_weight, self.stride = phase_weight_fd, stride_fd
        names = vgg_layers("vgg19")
        positions = [names.index(name) for name in weights]
        self.features = TorchvisionFeatures("vgg19", positions, pretrained=pretrained, weights_path=weights_path)
        if criterion.startswith("fd"):
            for name in weights:
                self.register_buffer(f"projections_{name}", _projections(name, num_proj_fd), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor | dict[str, Tensor]:
        """The unweighted loss, a scalar; with a style_weight the components `perceptual` and `style`."""
        pairs = dict(zip(self.weights, self.features.pairs(output, target), strict=True))
        values: dict[str, Tensor] = {}
        if self.perceptual_weight > 0:
            distances = [weight * self._distance(name, *pairs[name]) for name, weight in self.weights.items()]
            values["perceptual"] = self.perceptual_weight * torch.stack(distances).sum()
        if self.style_weight > 0:
            styles = [weight * style_distance(*pairs[name]) for name, weight in self.weights.items()]
            values["style"] = self.style_weight * torch.stack(styles).sum()
        return values if self.style_weight > 0 else values["perceptual"]

    def _distance(self, name: str, output: Tensor, target: Tensor) -> Tensor:
        share = self.shares[name]
        distribution, _, difference = self.criterion.partition("+")
        if share == 0:
            return self._difference(difference or distribution, output, target)
        mixed = share * self.w_lambda * self._distribution(distribution, name, output, target)
        return mixed if share == 1 else mixed + (1 - share) * self._difference(difference, output, target)

    def _difference(self, kind: str, output: Tensor, target: Tensor) -> Tensor:
        if kind == "l1":
            return F.l1_loss(output, target)
        return F.mse_loss(output, target) if kind == "l2" else charbonnier(output, target).mean()

    def _distribution(self, kind: str, name: str, output: Tensor, target: Tensor) -> Tensor:
        if kind == "pd":
            return position_distance(output, target)
        projections = self.get_buffer(f"projections_{name}")
        return frequency_distance(output, target, projections, phase_weight=self.phase_weight, stride=self.stride)


def _layer_weights(
    layers: tuple[str, ...] | None, layer_weights: dict[str, float] | None, criterion: str
) -> dict[str, float]:
    if layers is not None and layer_weights is not None:
        raise ConfigError(Problem(key="layers", message="found beside layer_weights; accepted: one of the two"))
    if layers is not None:
        return dict.fromkeys(layers, 1.0)
    if layer_weights is not None:
        return layer_weights
    kinds = ("conv", "relu") if "+" in criterion else ("relu",) if criterion in ("pd", "fd") else ("conv",)
    return {f"{kind}{block}": weight for kind in kinds for block, weight in _BLOCKS.items()}


def _shares(alpha: tuple[float, ...] | None, weights: dict[str, float], criterion: str) -> dict[str, float]:
    """The share of the distribution's distance in each layer's distance."""
    mixture = "+" in criterion
    if alpha is None:
        pure = float(criterion in ("pd", "fd"))
        return {name: float(not name.startswith("conv")) if mixture else pure for name in weights}
    if not mixture:
        message = f"found beside criterion {criterion}; accepted: leaving it out, or criterion pd+l1 or fd+l1"
        raise ConfigError(Problem(key="alpha", message=message))
    if len(alpha) != len(weights):
        message = f"found {len(alpha)} values; accepted: one for each of {', '.join(weights)}"
        raise ConfigError(Problem(key="alpha", message=message))
    return dict(zip(weights, alpha, strict=True))


def _projections(layer: str, count: int) -> Tensor:
    """Unit vectors (count, C, K, K), drawn with a seed of the layer's own: the same in every run."""
    channels = (64, 128, 256, 512, 512)[int(layer[4]) - 1]  # of the block, the digit in conv3_4, relu3_4, pool3
    generator = torch.Generator().manual_seed(vgg_layers("vgg19").index(layer))
    vectors = torch.randn(count, channels, _PATCH, _PATCH, generator=generator, dtype=torch.float32)
    return vectors / vectors.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
