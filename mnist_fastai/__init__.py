import os

__version__ = '0.1.0'

# ONNX Runtime reads this when it is imported; else it writes an id into the home folder and talks to its maker.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
