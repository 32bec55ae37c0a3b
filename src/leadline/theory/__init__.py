"""What theory says of depth, as code that has an oracle: circuits, chains, mean-field predictions."""
