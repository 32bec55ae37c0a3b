"""A read-only web page that shows studies while they train."""
