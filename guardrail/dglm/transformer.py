"""The diffusion transformer of the paper: the latent is cut into tokens that attend to each other and to the prefix.

Lovelace et al. 2024, appendix, and their code: 12 layers over 32 tokens spliced from the vector, RMS-normalised queries
and keys (Henry et al. 2020), gated linear units (Shazeer 2020), skips from each layer of the first half to its mirror
image in the second (Bao et al. 2023, U-ViT).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guardrail.dglm.network import Body, Context, NetworkConfig
from guardrail.errors import ConfigurationError


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.joint, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.query_norm, self.key_norm = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)

    def forward(self, h: Tensor, mask: Tensor | None) -> Tensor:
        parts = self.joint(h).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, heads, width / heads)
        query, key, value = (part.transpose(1, 2) for part in parts.unbind(dim=2))
        query, key = (
            norm(part.float()).to(part.dtype) for norm, part in ((self.query_norm, query), (self.key_norm, key))
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out


class _Layer(nn.Module):
    """Attention and a gated MLP, each scaled and shifted by the condition (FiLM, the identity to begin with)."""

    def __init__(self, config: NetworkConfig, condition: int, mirrors: bool) -> None:
        super().__init__()
        width = config.width
        self.skip = nn.Linear(2 * width, width) if mirrors else None
        self.norms = nn.ModuleList(nn.RMSNorm(width, elementwise_affine=False) for _ in range(2))
        self.film = nn.Linear(condition, 4 * width)
        self.attention = _Attention(width, config.heads)
        self.gate, self.up = nn.Linear(width, config.hidden), nn.Linear(width, config.hidden)
        self.down = nn.Linear(config.hidden, width)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, h: Tensor, condition: Tensor, mask: Tensor | None, mirrored: Tensor | None) -> Tensor:
        if self.skip is not None and mirrored is not None:
            h = self.skip(torch.cat((h, mirrored), dim=-1))
        scale_a, shift_a, scale_m, shift_m = self.film(condition)[:, None].chunk(4, dim=-1)
        h = h + self.attention(self.norms[0](h) * (1.0 + scale_a) + shift_a, mask)
        inner = self.norms[1](h) * (1.0 + scale_m) + shift_m
        out: Tensor = h + self.down(F.silu(self.gate(inner)) * self.up(inner))
        return out


class TokenTransformer(Body):
    """Tokens of the latent, tokens of the prefix's embedding, and, as an option, the prefix's token states.

    Raises:
        ConfigurationError: sizes that do not divide.
    """

    CONDITION = 512

    def __init__(self, config: NetworkConfig) -> None:
        if not config.tokens or config.dim % config.tokens or not config.heads or config.width % config.heads:
            raise ConfigurationError(
                f"a transformer needs tokens that divide dim ({config.tokens} and {config.dim}) and heads that divide "
                f"width ({config.heads} and {config.width})"
            )
        super().__init__(config)
        piece = config.dim // config.tokens
        self.pieces = config.tokens
        self.enter, self.enter_prefix = nn.Linear(piece, config.width), nn.Linear(piece, config.width)
        self.enter_states = nn.Linear(config.states, config.width) if config.states else None
        self.place = nn.Parameter(0.02 * torch.randn(2, config.tokens, config.width))
        half = config.layers // 2
        self.layers = nn.ModuleList(
            _Layer(config, self.CONDITION, mirrors=number >= config.layers - half) for number in range(config.layers)
        )
        self.mirrors = half
        self.norm = nn.RMSNorm(config.width, elementwise_affine=False)
        self.leave = nn.Linear(config.width, piece)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, z: Tensor, log_snr: Tensor, context: Context) -> Tensor:
        """Return F (B, d)."""
        before = torch.where(context.known[:, None], context.before, self.null)
        condition = self.condition(log_snr, before)
        h = torch.cat(
            (
                self.enter(z.reshape(len(z), self.pieces, -1)) + self.place[0],
                self.enter_prefix(before.reshape(len(z), self.pieces, -1)) + self.place[1],
            ),
            dim=1,
        )  # (B, 2 tokens, width)
        h, mask = self._with_states(h, context)
        passed: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            mirrored = passed.pop() if number >= len(self.layers) - self.mirrors else None
            h = layer(h, condition, mask, mirrored)
            if number < self.mirrors:
                passed.append(h)
        out: Tensor = self.leave(self.norm(h[:, : self.pieces])).flatten(1)
        return out

    def _with_states(self, h: Tensor, context: Context) -> tuple[Tensor, Tensor | None]:
        """Append the prefix's token states; those of unknown prefixes and of padding are not attended to."""
        if self.enter_states is None or context.states is None or context.mask is None:
            return h, None
        seen = context.mask & context.known[:, None]  # (B, T)
        always = torch.ones(h.shape[:2], dtype=torch.bool, device=h.device)
        mask = torch.cat((always, seen), dim=1)[:, None, None]  # (B, 1, 1, 2 tokens + T): keys
        return torch.cat((h, self.enter_states(context.states)), dim=1), mask
