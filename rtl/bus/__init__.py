"""The bus: AXI channels, bursts, and words of other widths."""
