"""Our models as models of transformers; importing this makes them known to its AutoConfig and AutoModelForCausalLM.

import memlayers.exported, transformers
transformers.AutoModelForCausalLM.from_pretrained("folder")     # which scripts/export.py wrote

Needs the extra `hf`.
"""

from memlayers.exported.write import export  # and with it the config and the model, which register themselves

__all__ = ["export"]
