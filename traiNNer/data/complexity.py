"""How much an image holds that a network could learn from, as one number."""

from __future__ import annotations

import math

from traiNNer.utils.image_measures import REFERENCE, ImageMeasures


def complexity(measures: ImageMeasures) -> float:
    """(t + e) / 2 with t = s / (s + s0) of the texture's standard deviation s, e = E / (E + E0) of the edge density E.

    s0 and E0 are those of `image_measures.REFERENCE`: a typical crop of a photograph has 0.5. Flat images have 0, and
    1 is the limit for endless contrast. Noise is not complexity: s and E are what is left without it.

    Range: [0, 1). Reference: our own, from the measures of calibration.
    """
    texture, usual = math.sqrt(measures.texture_variance), math.sqrt(REFERENCE.texture_variance)
    edges = measures.edge_density
    return (texture / (texture + usual) + edges / (edges + REFERENCE.edge_density)) / 2
