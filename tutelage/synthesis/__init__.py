"""Images made from a trained network alone, and how near data are to those that it was trained on."""
