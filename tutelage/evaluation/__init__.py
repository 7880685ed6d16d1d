"""Evaluating predictions: metrics, scores, uncertainty."""
