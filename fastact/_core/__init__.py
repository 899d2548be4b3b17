"""The compiled core: argument checks, threads and loops over the kernels of ``src_c``. Internal."""
