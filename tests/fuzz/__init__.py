"""A fuzzer of everything public: valid calls of which one to three arguments are made hostile.

From a shell: ``PYTHONPATH=tests python -m fuzz --calls 100000 --seed 1``. ``--only INDEX`` repeats one call.
"""
