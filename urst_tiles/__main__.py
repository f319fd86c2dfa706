"""``python -m urst_tiles`` is ``urst-tiles``."""

import sys

from urst_tiles.cli import main

sys.exit(main())
