"""`python -m tutelage`."""

import sys

from tutelage.cli.commands import main

sys.exit(main())
