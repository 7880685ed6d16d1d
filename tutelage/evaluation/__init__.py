"""What predictions are worth: metrics, scores, uncertainty."""
