"""python -m restorert.cli."""

import sys

from restorert.cli.main import main

sys.exit(main())
