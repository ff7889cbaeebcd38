"""Write a model that a run kept (save_model=true) as a folder of transformers, with questions for lm-eval.

python scripts/export.py RUN FOLDER     RUN is the record of the run, or its .safetensors; FOLDER is new or empty

    import memlayers.exported, transformers
    model = transformers.AutoModelForCausalLM.from_pretrained("FOLDER")     # generates without a cache
    tokenizer = transformers.AutoTokenizer.from_pretrained("FOLDER")

lm_eval --model hf --model_args pretrained=FOLDER --tasks FOLDER/memlayers_facts.yaml --batch_size 64

The task is named by its file, which makes our models known to transformers before lm-eval loads one.
"""

import argparse
import os
from pathlib import Path

import memlayers
from memlayers.studies.cli import verb


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        from memlayers.exported import export
    except ImportError as error:
        raise ValueError(f'export needs transformers ({error}); accepted: pip install "memlayers[hf]"') from None
    names = export(memlayers.load(given.run), given.folder)
    print(f"{given.folder}: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    verb(main)
