"""Data sets: what there is (`catalog`), its files (`files`), folders of pictures (`index`), batches (`batches`)."""
