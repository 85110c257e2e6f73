"""How messages reach an engine: in memory, over a socket. Siblings behind one seam (`transports/base.py`)."""
