"""All six experiments, seed by seed: `python -m experiments`."""

from benchmarks.common import run_main

from experiments import cuts, lengths, orders, rates, sooner, syntax
from experiments.harness import main

ALL = [module.EXPERIMENT for module in (rates, orders, sooner, cuts, lengths, syntax)]

if __name__ == "__main__":
    run_main(lambda arguments: main(ALL, arguments))
