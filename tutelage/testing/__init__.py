"""The conformance suite, for methods of your own as for ours."""
