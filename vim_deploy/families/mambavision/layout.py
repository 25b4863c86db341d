"""What all MambaVisions have in common, because the official code has it so."""

from __future__ import annotations

#: Levels of the network. The official code halves the map behind the first three, whatever
#: ``depths`` holds, and then ends with a norm over 8 ``dim`` channels: no other number runs.
LEVELS = 4
#: The first levels are convolutions; the others have windows of tokens.
CONV_LEVELS = 2
#: Fixed in the official ``Block``: states of a channel, taps of the convolutions.
D_STATE, D_CONV = 8, 3
