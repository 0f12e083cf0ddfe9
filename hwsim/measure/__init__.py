"""What a file or a workload costs, by the RTL or by the cycle model."""
