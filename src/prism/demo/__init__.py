"""The demonstration: the digits model, every plan side by side, an adaptive stream.

Change here what `prism demo` shows; it uses prism as any program would.
"""
