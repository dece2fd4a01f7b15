"""The Python interface. `ltx_dist` itself exports it; nothing here prints, exits or handles signals unless asked to."""
