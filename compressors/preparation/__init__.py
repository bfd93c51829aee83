"""Changes to a model before compression that keep its function: channel scaling.

It knows `calibration` and `anatomy`. Begin with `_channel_scaling.py`. Another preparation (a rotation, say) is one
file here.
"""
