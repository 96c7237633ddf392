"""Kind `direction`: a community's own do and don't, without a single labelled text.

```yaml
cruelty:
  kind: direction
  toward: ["mock a weaker player", "laugh at somebody's mistake"]     # what scores high
  away: ["encourage a weaker player", "help somebody who made a mistake"]
  templates: ["Is it ok to {}?", "{}"]                                # default: short statements
```

After MoralDirection (Schramowski et al., Nature Machine Intelligence 2022, "Methods"): phrases are put into templates,
embedded and averaged over the templates. The paper then takes the first principal component, oriented by a known-bad
cluster; with both sides named it is the mean of the differences between them, in which the topics that the two sides
share cancel out (with a few phrases the first component is often just such a topic).

The direction is a linear head like any other: it joins the matrix and steers the rewriter. But its probability is set
by the phrases and by everyday text, not by labels, and it tells topics rather than stances apart: it is a signal, not a
verdict. Weigh it beside other classifiers, and teach a head by examples where you have some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from guardrail.classifiers.background import background, background_sha256
from guardrail.classifiers.base import BuildContext, check_options
from guardrail.classifiers.linear import LinearClassifier, make_head
from guardrail.classifiers.made import encoder_sha256, made_head
from guardrail.classifiers.options import texts
from guardrail.encoder import Encoder, Vectors, load_encoder
from guardrail.errors import ClassifierError
from guardrail.policy.bundle import LinearHead

__all__ = ["TEMPLATES", "DirectionClassifier", "build", "find_direction"]

KIND: Final = "direction"
VERSION: Final = "2"
TEMPLATES: Final = ("{}", "You {}.", "I want to {}.", "I will {}.")
AT_PHRASES: Final = 2.0
"""Log odds between the average phrase of a side and the middle between the sides."""
SPREADS: Final = 2.0
"""Standard deviations of everyday text above its mean at which a text is as likely as not."""
LEAST: Final = 0.02
"""Distance between the means of the two sides; unit vectors of unrelated texts are about 1.3 apart."""
MOST: Final = 200


class DirectionClassifier(LinearClassifier):
    """A direction between phrases as a classifier. See `LinearClassifier`."""

    kind = KIND


def find_direction(
    name: str, encoder: Encoder, toward: Sequence[str], away: Sequence[str], templates: Sequence[str], folder: Path
) -> LinearHead:
    """Return the direction as a head.

    Args:
        name: what it measures.
        encoder: whose space it lives in.
        toward: phrases that should score high.
        away: phrases that should score low.
        templates: texts with `{}` where a phrase goes.
        folder: the cache, for the vectors of everyday text.

    Raises:
        ClassifierError: the two sides mean the same to the encoder.
    """
    high, low = (_averaged(encoder, phrases, templates) for phrases in (toward, away))
    difference = high.mean(axis=0, dtype=np.float64) - low.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(difference))
    if length < LEAST:
        raise ClassifierError(f"classifier {name!r}: `toward` and `away` mean the same.")
    axis = difference / length
    everyday = background(encoder, folder).astype(np.float64) @ axis
    up = float((encoder.encode(list(toward)) @ axis).mean())
    down = float((encoder.encode(list(away)) @ axis).mean())
    middle = max((up + down) / 2, float(everyday.mean() + SPREADS * everyday.std()))
    slope = 2 * AT_PHRASES / max(up - down, 1e-3)
    return make_head(name, slope * axis, -slope * middle, encoder.sha256)


def _averaged(encoder: Encoder, phrases: Sequence[str], templates: Sequence[str]) -> Vectors:
    """(n, d): each phrase in every template, averaged."""
    filled = [template.replace("{}", phrase) for phrase in phrases for template in templates]
    vectors = encoder.encode(filled).reshape(len(phrases), len(templates), -1)
    return np.asarray(vectors.mean(axis=1, dtype=np.float64), dtype=np.float32)


def build(name: str, options: Mapping[str, Any], context: BuildContext) -> DirectionClassifier:
    """Build the classifier that the options describe (see the module). Embeds the phrases unless the cache knows them.

    Raises:
        ClassifierError: an option is unknown or of the wrong form, or a side has no phrases.
    """
    check_options(KIND, name, options, ("toward", "away", "templates"))
    toward, away = texts(name, options, "toward"), texts(name, options, "away")
    templates = texts(name, options, "templates") or TEMPLATES
    for side, phrases in (("toward", toward), ("away", away)):
        if not phrases:
            raise ClassifierError(f"classifier {name!r}: `{side}` needs at least one phrase.")
        if len(phrases) > MOST:
            raise ClassifierError(f"classifier {name!r}: `{side}` has {len(phrases)} phrases; at most {MOST} are read.")
    for template in templates:
        if template.count("{}") != 1:
            raise ClassifierError(f"classifier {name!r}: the template {template!r} needs one {{}} for the phrase.")
    content = {
        "kind": [KIND, VERSION, AT_PHRASES, SPREADS],
        "name": name,
        "encoder": encoder_sha256(context.encoder, context.device),
        "background": background_sha256(),
        "phrases": [list(toward), list(away), list(templates)],
    }

    def make() -> LinearHead:
        encoder = load_encoder(context.encoder, context.device)
        return find_direction(name, encoder, toward, away, templates, context.data_dir)

    return DirectionClassifier(name, made_head(context.data_dir, content, make), context.encoder, context.device)
