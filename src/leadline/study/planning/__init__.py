"""Planning: what a study will take, before anything runs."""
