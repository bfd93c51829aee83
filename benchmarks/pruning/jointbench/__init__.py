"""One family of levels at a time, and all together: allocation against uniform, and whose front is the larger."""
