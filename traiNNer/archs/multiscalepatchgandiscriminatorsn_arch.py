"""PatchGANs for an image at several sizes."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from traiNNer.archs.patchgandiscriminatorsn_arch import Channels, Layers, PatchGANDiscriminatorSN, Sigmoid, Width
from traiNNer.types import NetworkInfo
from traiNNer.utils.registry import NETWORKS


@NETWORKS.register("multiscalepatchgandiscriminatorsn")
class MultiscalePatchGANDiscriminatorSN(nn.Module):
    """PatchGANs with spectral norm for the image, the image at half its size, and so on.

    The training loop must call `after_update()` after each optimizer step, see `SpectralNormConv2d`.

    Shapes: (B, input_nc, H, W) -> num_d tensors (B, 1, h, w), the largest first; any H and W from 1.
    Range: images in [0, 1]; logits without bounds, or with `use_sigmoid` probabilities.
    Reference: Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs",
    CVPR 2018 (pix2pixHD).

    ```yaml
    network_d:
      type: multiscalepatchgandiscriminatorsn
      ndf: 64
      num_d: 3
    ```
    """

    def __init__(
        self,
        *,
        input_nc: Channels = 3,
        ndf: Width = 64,
        n_layers: Layers = 3,
        use_sigmoid: Sigmoid = False,
        num_d: Annotated[int, Field(ge=1, description="discriminators, each at half the size of the one before")] = 3,
    ) -> None:
        super().__init__()
        self._names = [f"layer{number}" for number in range(num_d)]
        for name in self._names:
            patches = PatchGANDiscriminatorSN(input_nc=input_nc, ndf=ndf, n_layers=n_layers, use_sigmoid=use_sigmoid)
            self.add_module(name, patches.model)
        self.network_info = NetworkInfo(type="", in_channels=input_nc, out_channels=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """A value for every patch, at every size."""
        outputs = []
        for name in reversed(self._names):  # as published, the last sees the whole image
            outputs.append(self.get_submodule(name)(x))
            x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return outputs
