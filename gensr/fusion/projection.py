"""From a view's vectors to slots of the prompt: injected vectors must look like the token embeddings around them."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class SlotProjection(nn.Module):
    """Map a view's vectors into the backbone's embedding space, at the size of its token embeddings.

    A linear map, then a root-mean-square normalisation with a learned gain that starts at `rms`. A language model is
    trained on embeddings of one typical size; slots ten times smaller or larger are ignored or drown the text, which
    is a likely cause of the released code's first epochs at the base rate.

    Args:
        in_dim: width of the view.
        width: width of the backbone.
        rms: root mean square of the backbone's token embeddings.

    Inputs ``[..., in_dim]``, output ``[..., width]``. The bias starts small but not zero: it is what a zero vector (an
    item nobody touched, an empty history) becomes, it bounds the gradient of the normalisation there, and a shorter
    vector leans more towards it, so the length of a CF vector (its popularity) is not lost altogether.
    """

    def __init__(self, in_dim: int, width: int, *, rms: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, width)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        if in_dim == width:
            nn.init.eye_(self.linear.weight)  # vectors of the backbone's own space start where its tokens are
        else:
            nn.init.normal_(self.linear.weight, std=in_dim**-0.5)  # keeps the size of a vector's entries
        nn.init.normal_(self.linear.bias, std=0.1)
        nn.init.constant_(self.norm.weight, rms)

    def forward(self, x: Tensor) -> Tensor:
        """Slots [..., width] of vectors [..., in_dim]."""
        # In the norm's own dtype: under autocast the product comes in bfloat16, for which torch has no fused norm.
        return cast(Tensor, self.norm(self.linear(x).to(self.norm.weight.dtype)))
