"""Our models as models of transformers; importing this makes them known to its AutoConfig and AutoModelForCausalLM.

import memlayers.exported, transformers
transformers.AutoModelForCausalLM.from_pretrained("folder")     # which scripts/export.py wrote

Needs the extra `hf`.
"""

from memlayers.exported.config import MemlayersConfig
from memlayers.exported.model import MemlayersForCausalLM
from memlayers.exported.write import export

__all__ = ["MemlayersConfig", "MemlayersForCausalLM", "export"]
