"""The prompt generator: a sentence embedding becomes a few soft tokens for the decoder.

Diffusion Guided Language Modeling (Lovelace et al., ACL Findings 2024, section 4.3): a linear map splits the embedding
into soft tokens, a bidirectional transformer mixes them, and the noise level of the embedding reaches it by
zero-initialised FiLM. Training on noised embeddings makes the decoder robust to imperfect proposals.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PromptGenerator(nn.Module):
    """Map embeddings to soft tokens.

    Args:
        latent_dim: width of the sentence embedding.
        width: width of the decoder.
        tokens: number of soft tokens; the paper's 8.
        layers: transformer layers over the soft tokens.
        heads: attention heads.
    """

    def __init__(self, latent_dim: int, width: int, tokens: int = 8, layers: int = 1, heads: int = 6) -> None:
        super().__init__()
        self.tokens, self.width = tokens, width
        self.expand = nn.Linear(latent_dim, tokens * width)
        self.film = nn.Linear(1, 2 * width)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.mixer = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, latent: Tensor, signal: Tensor) -> Tensor:
        """Return the soft tokens, shape (B, tokens, width).

        Args:
            latent: unit-variance latents, possibly noised, shape (B, latent_dim).
            signal: alpha squared of each latent, in (0, 1], shape (B,). 1 means free of noise.
        """
        soft = self.expand(latent).view(-1, self.tokens, self.width)  # (B, tokens, width)
        scale, shift = self.film((1.0 - signal)[:, None]).chunk(2, dim=-1)  # (B, width) each
        soft = soft * (1.0 + scale[:, None]) + shift[:, None]
        mixed: Tensor = self.norm(self.mixer(soft))
        return mixed


def noise_latent(latent: Tensor, signal: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return sqrt(signal) * latent + sqrt(1 - signal) * noise; shapes (B, D), (B,) -> (B, D)."""
    noise = torch.randn(latent.shape, generator=generator, device=latent.device, dtype=latent.dtype)
    return signal.sqrt()[:, None] * latent + (1.0 - signal).sqrt()[:, None] * noise
