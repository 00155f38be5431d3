"""What networks call the channels of their images or fields."""

from __future__ import annotations

INPUT = ("in_chans", "in_channels", "in_ch", "in_nc", "num_in_ch", "inp_channels", "input_nc")
OUTPUT = ("out_channels", "out_ch", "out_nc", "num_out_ch")
BOTH = ("img_channel", "n_colors")
"""Those that it takes and gives; a network that has a name of `INPUT` and none of `OUTPUT` gives what it takes."""

NAMES = (*INPUT, *OUTPUT, *BOTH)
