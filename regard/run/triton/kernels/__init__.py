"""The kernels. Modules here import triton when loaded, so others import them inside functions."""
