"""Tutelage: knowledge distillation for PyTorch."""
