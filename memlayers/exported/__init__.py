"""Our models as models of transformers; importing this registers them with AutoConfig and AutoModelForCausalLM.

import memlayers.exported, transformers
transformers.AutoModelForCausalLM.from_pretrained("folder")     # which scripts/export.py wrote

Needs the extra `hf`.
"""

from memlayers.exported.write import export  # its imports register the config and the model

__all__ = ["export"]
