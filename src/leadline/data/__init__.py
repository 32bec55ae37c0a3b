"""Data sets: what there is (`catalog`), its files (`files`), and batches of tensors for training (`batches`)."""
