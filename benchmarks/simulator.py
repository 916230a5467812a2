"""How many impressions a second the simulator logs on one core, the frames included.

    python benchmarks/simulator.py --impressions 1000000

Run it with OMP_NUM_THREADS=1: polars and numpy may use more cores otherwise.
"""

import argparse
import time

from rec_engine.data.clickstream_sim import demo_simulator

IMPRESSIONS_AN_INTERACTION = 4.2
DAYS = 180.0


def main() -> None:
    """Simulate the demo shop, as large as the impressions that are wanted, and print the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impressions", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=4_000)
    parser.add_argument("--items", type=int, default=1_000)
    arguments = parser.parse_args()
    n_interactions = round(arguments.impressions / IMPRESSIONS_AN_INTERACTION)
    clock, cpu = time.perf_counter(), time.process_time()
    simulator = demo_simulator(0, arguments.users, arguments.items, n_interactions)
    found = simulator.simulate_period(n_days=DAYS)
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    n = found.impressions.height
    print(
        f"{n:,} impressions and {found.interactions.height:,} interactions of {arguments.users:,} users with "
        f"{arguments.items:,} items in {clock:.1f} s, {cpu:.1f} s of CPU: {n / clock:,.0f} impressions/s by the clock, "
        f"{n / cpu:,.0f} a second of CPU"
    )


if __name__ == "__main__":
    main()
