"""Training of the small demonstration model that ships with ltx_dist."""
