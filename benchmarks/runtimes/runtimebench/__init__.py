"""Models × runtimes × formats, and the makers' own quantizers beside them."""
