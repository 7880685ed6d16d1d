"""What a teacher said about recorded views of the data, on disk: written once, replayed for the very same pixels."""
