"""A fuzzer of everything public: valid calls of which one to three arguments are made hostile.

From a shell: ``PYTHONPATH=tests python -m fuzz --calls 100000 --seed 1``. ``--only INDEX`` repeats one call. With
RNNCORE_TEST_THREADS=n every call is cut for n threads. A sanitized build needs LD_PRELOAD of libasan and libstdc++, and
ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=2048.
"""
