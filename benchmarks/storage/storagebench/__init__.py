"""Ten layers, what a file of them takes, and the least that it could."""
