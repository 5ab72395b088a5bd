"""mfd-peer and mfd: where the parts meet."""
