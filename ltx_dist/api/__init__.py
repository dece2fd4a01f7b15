"""The Python interface, exported by `ltx_dist`. Nothing here prints, exits or handles signals unless asked to."""
