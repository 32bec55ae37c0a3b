"""Data sets: one file for each (`datasets`), arrays and encoded images that they read, batches of these (`batches`)."""
