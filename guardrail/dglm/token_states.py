"""What stands before, token by token, for a network that looks at more than its embedding (`network.states`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guardrail.dglm.network import TokenStates

if TYPE_CHECKING:
    from guardrail.encoder import Encoder

LONGEST = 64
"""Tokens of what stands before whose states a network looks at."""


def token_states(encoder: Encoder, tokens: Sequence[Sequence[int]], longest: int = LONGEST) -> TokenStates:
    """Return the states of the last `longest` tokens before; rows without tokens have none that are real.

    The sentence's first token stays, for an encoder expects it.
    """
    cut = [ids if len(ids) <= longest else [ids[0], *ids[1 - longest :]] for ids in tokens]
    states, mask = encoder.states([ids or [0] for ids in cut])
    return states, mask & np.array([bool(ids) for ids in cut])[:, None]
