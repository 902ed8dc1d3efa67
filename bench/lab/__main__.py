"""`python -m bench.lab`."""

import sys

from bench.lab.commands import main

sys.exit(main())
