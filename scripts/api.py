"""Write pages about what is called from Python, out of the docstrings: one HTML file a module.

python scripts/api.py FOLDER     needs pip install -e ".[api]" -c constraints.txt
"""

import argparse
from pathlib import Path

from memlayers.studies.cli import verb

PARTS = ("exported", "layers", "optim", "trained", "tracing")  # beside memlayers itself


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    try:
        import pdoc

        pdoc.pdoc("memlayers", rf"!memlayers\.(?!({'|'.join(PARTS)})$)", output_directory=folder)
    except ImportError as error:
        raise ValueError(f'pages need pdoc ({error}); accepted: pip install -e ".[api]" -c constraints.txt') from None
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written ({error.strerror}); accepted: a writable folder") from None
    print(folder / "index.html")
    return 0


if __name__ == "__main__":
    verb(main)
