"""The conformance suite, for methods of your own as for ours: `check_method("package.module:Class")`."""

from tutelage.testing.conformance import CHECKS, check_method

__all__ = ["CHECKS", "check_method"]
