"""Semantic proposals: from a prefix or a draft to embeddings that say something allowed, by guided diffusion.

`Diffusion.propose` puts the parts together: a denoiser (the network, its student, or the closed form for Gaussian
latents), guidance around it, a sampler over it, particles beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from guardrail.dglm.classifier_free import ClassifierFreeGuidance
from guardrail.dglm.denoiser import Counted, Denoiser, GaussianDenoiser
from guardrail.dglm.guidance import Guide, Heads, LinearGuidance
from guardrail.dglm.latents import Array, LatentStatistics
from guardrail.dglm.reference import BackwardGuidance
from guardrail.dglm.safe_latent import PRESETS, SafeLatentGuidance
from guardrail.dglm.sampler import invert, sampler
from guardrail.dglm.schedule import CosineSchedule, Schedule
from guardrail.dglm.steering import Particles, Potential, Scorer
from guardrail.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from guardrail.dglm.network import ProposalNetwork, TokenStates


LOWEST = -8.0
"""Log-SNR that sampling begins with: the data is 2% of such noise."""


@dataclass(frozen=True, slots=True)
class ProposalSettings:
    """How proposals are sampled.

    Attributes:
        sampler: a name of `guardrail.dglm.sampler.SAMPLERS`. steps: of the sampler, >= 1.
        guide: "posterior" (C_t w), "covariance" (S w), "bare" (w), "backward" (the paper's) or "none".
        scale: strength s; 0 is unguided. cfg: weight of the prefix, 1 is the conditional network alone.
        renoise: "guided", or "unguided" (CFG++). stop_at: no guidance for what passes with this P(allowed); None for ever.
        safe_latent: a preset of `guardrail.dglm.safe_latent`, in the place of `guide` and `scale`.
        fresh: share in [0, 1] of the noise of an edit that is drawn anew; the rest is the draft's own, found by DDIM
            inversion with the plain denoiser (Song et al. 2021, section 4.3), which keeps what the guides do not change.
        particles: per proposal; more than 1 needs a scorer. potential, reward_scale, resample_every: see `Particles`.
        student: sample with the distilled network.
    """

    sampler: str = "dpmpp_2m"
    steps: int = 15
    guide: Literal["posterior", "covariance", "bare", "backward", "none"] = "posterior"
    scale: float = 8.0
    cfg: float = 1.0
    renoise: Literal["guided", "unguided"] = "guided"
    stop_at: float | None = None
    safe_latent: str | None = None
    fresh: float = 1.0
    particles: int = 1
    potential: Potential = "difference"
    reward_scale: float = 4.0
    resample_every: int = 1
    student: bool = False


EDIT = ProposalSettings(scale=4.0, renoise="unguided", fresh=0.25)
"""For drafts: most of the noise is the draft's own, and guidance does not spoil it. Measured in docs/diffusion.md."""

STUDENT = ProposalSettings(sampler="consistency", steps=4, student=True)
"""The distilled network in four steps."""


@dataclass(frozen=True, slots=True)
class Proposals:
    """What `Diffusion.propose` returns.

    Attributes:
        embeddings: unit vectors (K, d). allowed: P(allowed) of each under the guides (K,), 1 without guides.
        evaluations: of the network per proposal; a backward pass counts two. seconds: wall-clock time of all.
    """

    embeddings: Array
    allowed: npt.NDArray[np.float64]
    evaluations: float
    seconds: float


class Diffusion:
    """A loaded diffusion. Thread-safe: nothing is kept between calls.

    Args:
        statistics: of the latents it was trained on. network: None for the closed form of Gaussian latents, which knows no
            prefix. student: distilled network. schedule: of sampling. sha256: of the weights.
    """

    def __init__(
        self,
        statistics: LatentStatistics,
        network: ProposalNetwork | None = None,
        student: ProposalNetwork | None = None,
        schedule: Schedule | None = None,
        sha256: str = "",
    ) -> None:
        self.statistics, self.network, self.student, self.sha256 = statistics, network, student, sha256
        self.schedule: Schedule = CosineSchedule(lowest=LOWEST) if schedule is None else schedule

    def propose(
        self,
        count: int,
        guides: Sequence[Guide] = (),
        *,
        before: Array | None = None,
        start: Array | None = None,
        strength: float = 1.0,
        seed: int = 0,
        settings: ProposalSettings | None = None,
        scorer: Scorer | None = None,
        states: TokenStates | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Proposals:
        """Sample proposals as one batch.

        Args:
            count: how many. guides: heads and their wanted sides, over unit embeddings.
            before: unit embedding of what stands before, (d,) for all or (count, d); None is the learned null.
            start: unit embedding of a draft, (d,) or (count, d), to edit it: it is noised to time `strength` in (0, 1] and
                denoised from there (SDEdit, Meng et al. 2022). None begins with pure noise.
            seed: the same arguments and seed give the same proposals.
            settings: see `ProposalSettings`. scorer: unit embeddings (N, d) to rewards (N,), for particles.
            states: token states of what stands before, of 1 or `count` rows, for a network that looks at them.
            cancelled: asked between steps.

        Raises:
            ConfigurationError: settings that contradict each other, or a student that is not there.
            Cancelled: `cancelled` said so.
            ValueError: a count, strength, share of noise or shape out of range.
        """
        settings = ProposalSettings() if settings is None else settings
        _check(count, strength, settings)
        sample, began, rng = sampler(settings.sampler), time.perf_counter(), np.random.default_rng(seed)
        particles = self._particles(settings, scorer, rng)
        rows = count * (1 if particles is None else particles.group)
        prefix = None if before is None else self._rows(before, count, rows)
        denoiser, counters = self._denoiser(prefix, _repeated(states, rows), settings, rows)
        first, z = self._first(start, strength, count, rows, denoiser, settings, rng)
        x0 = sample(
            z,
            self._guided(denoiser, guides, settings, rng),
            self.schedule,
            settings.steps,
            first,
            rng=rng,
            renoise=settings.renoise,
            observe=particles,
            cancelled=cancelled,
        )
        embeddings = self._embeddings(x0 if particles is None else x0[particles.best(x0)])
        allowed = Heads(guides, self.statistics).allowed(self.statistics.normalise(embeddings))
        evaluations = sum(counter.rows for counter in counters) / count
        return Proposals(embeddings, allowed, evaluations, time.perf_counter() - began)

    def _first(
        self,
        start: Array | None,
        strength: float,
        count: int,
        rows: int,
        denoiser: Denoiser,
        settings: ProposalSettings,
        rng: np.random.Generator,
    ) -> tuple[float, Array]:
        """The time that sampling begins at, and the latents (rows, d) there: noise, or a draft that was noised."""
        z = rng.standard_normal((rows, self.statistics.dim), dtype=np.float32)
        if start is None:
            return 1.0, z
        return strength, self._noised(self._rows(start, count, rows), z, strength, denoiser, settings)

    def _embeddings(self, x0: Array) -> Array:
        """Unit embeddings of clean latents.

        Statistics of another sample may divide a dead dimension by its own tiny deviation: it stays at the mean.
        """
        return self.statistics.denormalise(np.where(self.statistics.live, x0, np.float32(0.0)))

    def _rows(self, x: Array, count: int, rows: int) -> Array:
        """Normalised latents (rows, d) of unit embeddings (d,) or (count, d), each repeated for its particles."""
        if x.shape not in ((self.statistics.dim,), (count, self.statistics.dim)):
            raise ValueError(f"embeddings should be ({self.statistics.dim},) or ({count}, ...), got {x.shape}")
        latent = self.statistics.normalise(np.broadcast_to(x, (count, self.statistics.dim)))
        return np.repeat(latent, rows // count, axis=0).astype(np.float32)

    def _noised(
        self, latent: Array, noise: Array, time: float, denoiser: Denoiser, settings: ProposalSettings
    ) -> Array:
        """Latents at `time`: with fresh noise, with their own, or with a mixture of the same variance."""
        alpha, sigma = self.schedule.levels(time)
        if settings.fresh < 1.0:
            there = invert(latent, denoiser, self.schedule, settings.steps, time)
            own = (there - alpha * latent) / sigma
            noise = (settings.fresh * noise + math.sqrt(1.0 - settings.fresh**2) * own).astype(np.float32)
        noised: Array = (alpha * latent + sigma * noise).astype(np.float32)
        return noised

    def _denoiser(
        self, before: Array | None, states: TokenStates | None, settings: ProposalSettings, rows: int
    ) -> tuple[Denoiser, tuple[Counted, ...]]:
        """Return the denoiser bound to its prefix, and what counts its evaluations."""
        network = self.student if settings.student else self.network
        if settings.student and network is None:
            raise ConfigurationError(
                "this checkpoint has no student; run `guardrail dglm train distill`, or student: false"
            )
        if network is None:
            plain = Counted(GaussianDenoiser(self.statistics))
            return plain, (plain,)
        from guardrail.dglm.network import NetworkDenoiser, numpy_context

        bound = Counted(NetworkDenoiser(network, numpy_context(network, before, rows, states)))
        if settings.cfg == 1.0 or before is None:
            return bound, (bound,)
        if settings.guide == "backward":
            raise ConfigurationError("guide: backward goes with cfg: 1.0 only")
        free = Counted(NetworkDenoiser(network, numpy_context(network, None, rows)))
        return ClassifierFreeGuidance(bound, free, settings.cfg), (bound, free)

    def _guided(
        self, denoiser: Denoiser, guides: Sequence[Guide], settings: ProposalSettings, rng: np.random.Generator
    ) -> Denoiser:
        if settings.safe_latent is not None:
            if settings.safe_latent not in PRESETS:
                raise ConfigurationError(
                    f"there is no safe_latent preset {settings.safe_latent!r}: expected one of {', '.join(PRESETS)}."
                    f"{did_you_mean(settings.safe_latent, PRESETS)}"
                )
            return SafeLatentGuidance(denoiser, guides, self.statistics, PRESETS[settings.safe_latent])
        if not guides or settings.guide == "none" or settings.scale == 0.0:
            return denoiser
        if settings.guide == "backward":
            assert isinstance(denoiser, Counted)  # noqa: S101 (with cfg: 1.0 it is)
            return BackwardGuidance(
                denoiser, guides, self.statistics, settings.scale, stop_at=settings.stop_at, rng=rng
            )
        return LinearGuidance(denoiser, guides, self.statistics, settings.scale, settings.guide, settings.stop_at)

    def _particles(
        self, settings: ProposalSettings, scorer: Scorer | None, rng: np.random.Generator
    ) -> Particles | None:
        if settings.particles == 1:
            return None
        if scorer is None:
            raise ConfigurationError("particles need a scorer of embeddings; set particles: 1 or pass one")
        return Particles(
            lambda x0: scorer(self.statistics.denormalise(x0)),
            settings.particles,
            scale=settings.reward_scale,
            potential=settings.potential,
            every=settings.resample_every,
            rng=rng,
        )


def _check(count: int, strength: float, settings: ProposalSettings) -> None:
    if count < 1 or not 0.0 < strength <= 1.0 or not 0.0 <= settings.fresh <= 1.0:
        raise ValueError(
            "proposals need count >= 1, 0 < strength <= 1 and 0 <= fresh <= 1, "
            f"got {count}, {strength} and {settings.fresh}"
        )


def _repeated(states: TokenStates | None, rows: int) -> TokenStates | None:
    """Token states of `rows` latents, from those of one or of every proposal."""
    if states is None:
        return None
    times = rows // len(states[0])
    return np.repeat(states[0], times, axis=0), np.repeat(states[1], times, axis=0)


def gaussian_diffusion(statistics: LatentStatistics) -> Diffusion:
    """Return a diffusion without a network: the exact denoiser of Gaussian latents, which knows no prefix."""
    return Diffusion(statistics)
