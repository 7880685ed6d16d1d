"""Where a network is read: its layers, stages, classifier and maps."""
