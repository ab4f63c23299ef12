"""The harness: traces, synthetic workloads, simulation and reports. It uses public names only."""
