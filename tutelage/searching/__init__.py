"""The search for a student: spaces of networks, scores without training, evolution."""
