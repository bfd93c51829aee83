"""Every method and format of quantization on the same models, data and seeds."""
