"""What these pages need of Sphinx beyond what comes with it."""
