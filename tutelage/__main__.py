"""`python -m tutelage`."""

import sys

from tutelage.cli.main import main

sys.exit(main())
