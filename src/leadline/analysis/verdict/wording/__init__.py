"""The verdict in words: sentences, headline, notes, tables from one list of columns, text and JSON."""
