"""A worker with a fault put into it, for tests of the checker: ``python -m tests.checker.worker PLANT``."""

import sys

from oracle_hub.app.worker import main
from tests.checker.plants import PLANTS

if __name__ == "__main__":
    PLANTS[sys.argv[1]][0]()
    sys.exit(main())
