"""Networks that are about to be loaded are made without drawing first weights: half a second for all that a rewrite needs.

`torch.nn.utils.skip_init` and the meta device would do too, but they import torch's compiler, which takes longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWN: Final = {nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_, Tensor.uniform_, Tensor.normal_}
"""What `nn.Linear` and `nn.Embedding` fill their weights with."""


class Undrawn(TorchFunctionMode):
    """`with Undrawn(): network = Network(...)`: its weights are whatever the memory held. Other threads draw as ever.

    Every weight must then be loaded: see that `load_state_dict` is strict.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do what torch was asked to, except draw."""
        kwargs = kwargs or {}
        if func in _DRAWN:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
