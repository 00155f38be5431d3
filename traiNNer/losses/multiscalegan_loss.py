"""GAN loss over the scales of a discriminator."""

from __future__ import annotations

from traiNNer.losses.gan_loss import GANLoss
from traiNNer.utils.registry import LOSSES


@LOSSES.register("multiscaleganloss")
class MultiScaleGANLoss(GANLoss):
    """mean over scales s of the GAN loss of D_s, for a discriminator that looks at several sizes of the image.

    The same as `ganloss`, which takes the mean over whatever scales there are; the name is that of users' files.

    Shapes: a list of logits (B, 1, h, w), one a scale. Range: as `ganloss`.
    Reference: Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs"
    (pix2pixHD), CVPR 2018, which sums over the scales.
    traiNNer-redux: the mean is meant there too, but adding to an integer zero in place fails at the first step.

    ```yaml
    - type: multiscaleganloss
      gan_type: lsgan
      loss_weight: 0.1
    ```
    """
