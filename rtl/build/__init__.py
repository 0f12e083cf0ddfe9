"""From components to Verilog, areas and clocks."""
