"""``python -m urst_tiles.studio.framed FOLDER``: the studio of a folder, for a frame in a notebook.

It prints one line of JSON, with ``url`` or ``error``, and ends when its stdin does, that is, with the process
that started it.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from urst_tiles.errors import UrstError
from urst_tiles.machine import serve_beside_others
from urst_tiles.studio.child import watch


def _tell(**facts: str) -> None:
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()


def main(root: Path) -> int:
    """Serve until stdin ends; return the exit status."""
    serve_beside_others()
    try:
        from urst_tiles.studio.serve import serve

        threading.Thread(target=watch, daemon=True).start()
        serve(
            None,
            root,
            browse=False,
            framed=True,
            told=lambda url: _tell(url=url),
            warned=lambda sentence: None,
        )
    except ModuleNotFoundError as error:
        _tell(error=f"the studio needs {error.name}; install it with: pip install 'urst-tiles[studio]'")
        return 2
    except UrstError as error:
        _tell(error=str(error))
        return 2
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
