"""Language models that read a prompt with vectors in it and answer Yes or No, and what makes the prompts.

Names are imported at first use, so that reading a spec, which imports configs only, loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gensr.exports import lazy_exports

if TYPE_CHECKING:
    from gensr.backbones.base import Backbone as Backbone
    from gensr.backbones.base import Prompt as Prompt
    from gensr.backbones.decoder import DecoderBackbone as DecoderBackbone
    from gensr.backbones.discriminative import DiscriminativeBackbone as DiscriminativeBackbone
    from gensr.backbones.prompt import PromptBuilder as PromptBuilder
    from gensr.backbones.t5 import T5Backbone as T5Backbone
    from gensr.backbones.templates import TaskTemplates as TaskTemplates

_EXPORTS = {
    "Backbone": "gensr.backbones.base",
    "DecoderBackbone": "gensr.backbones.decoder",
    "DiscriminativeBackbone": "gensr.backbones.discriminative",
    "Prompt": "gensr.backbones.base",
    "PromptBuilder": "gensr.backbones.prompt",
    "T5Backbone": "gensr.backbones.t5",
    "TaskTemplates": "gensr.backbones.templates",
}
__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
