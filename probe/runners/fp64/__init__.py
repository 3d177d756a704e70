"""``fp64``: evaluates a network in float64. The golden that the noise floor of FP32 goldens is measured against.

In reading order: ``runner`` hands tensors out, ``rows`` says what is known of each, ``evaluate`` walks graphs and bodies, ``control`` runs
If, Loop and Scan, ``catalogue`` finds the kernel of a node, ``calls`` is what a kernel is given. The other files are kernels.
"""
