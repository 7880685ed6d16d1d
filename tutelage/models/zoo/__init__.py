"""The networks of the distillation literature."""
